"""Comparisons of made-up numbers: what is written about runs is tested without any."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from experiments.compare.page import Circumstances
from experiments.compare.plan import Plan, command_line
from experiments.compare.run import Results
from experiments.compare.write import Drawn, write, write_numbers
from experiments.engine import Run
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from experiments.provenance import machine, versions
from experiments.store import Store
from experiments.tuning import Trial, Tuning

PROBLEM = dataclasses.replace(
    PROBLEMS["rosenbrock"], random_start=True, targets=(0.5, 0.1), pictures=()
)


def made(
    optimizer: str,
    values: list[float],
    seed: int = 0,
    price: float = 1.0,
    status: str = "step limit",
    *,
    pace: float = 1e-3,
    problem: str = "rosenbrock",
    **diagnostics: list[float],
) -> Run:
    """A run by its values after 0, 1, 2, ... steps, and what it reported of each."""
    steps = np.arange(len(values), dtype=float)
    columns = {
        "step": steps,
        "gradient_equivalents": price * steps,
        "seconds": pace * steps,
        "value": np.array(values),
        "grad_norm": np.array(values),
        **{name: np.array(column) for name, column in diagnostics.items()},
    }
    return Run(problem, optimizer, seed, status, columns)


def searched(values: Mapping[float, float], converged: float | None = None) -> Tuning:
    """A search by the final value at each learning rate, one of which converged."""
    trials = [Trial(rate, value, 100, rate == converged) for rate, value in values.items()]
    return Tuning("learning_rate", tuple(trials), 100, 700.0)


def finished(*runs: Run, problem=PROBLEM, **tunings: Tuning) -> Results:
    results = Results(problem, runs=list(runs), tunings=dict(tunings))
    results.finish()
    return results


def written(folder: Path, *all_results: Results, interrupted: bool = False) -> None:
    """The folder that a comparison with these results leaves."""
    comparison = SimpleNamespace(
        plan=_plan(all_results),
        store=Store(folder),
        bar=tqdm(disable=True),
        results=list(all_results),
        notes=lambda: [],
    )
    write(comparison, interrupted, Drawn(comparison.store, comparison.bar))


def tabulated(folder: Path, *all_results: Results) -> None:
    """The same without pages and pictures."""
    plan = _plan(all_results)
    made = Circumstances(command_line(), versions(), machine(), plan.tuning_budget(), [])
    write_numbers(Store(folder), plan, list(all_results), made)


def _plan(all_results: Sequence[Results]) -> Plan:
    problems = [results.problem for results in all_results]
    return Plan(problems, list(OPTIMIZERS.values()), seeds=1)
