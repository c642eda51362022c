"""What a study is written with: runs of some optimizers on one problem, and a table."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.bar import Bar
from experiments.compare.plan import SEEDS, Plan
from experiments.compare.run import Comparison
from experiments.compare.verdict import remarks, verdict
from experiments.engine import Run
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from experiments.report import markdown_table
from experiments.results import number, shown, target_name
from experiments.store import Store


@dataclass(frozen=True)
class Limits:
    """How much a study may run, and where it keeps its runs."""

    seeds: int = SEEDS
    steps: int | None = None
    folder: Path = Path("results/studies")
    fresh: bool = False


_limits = Limits()


@contextlib.contextmanager
def limited(limits: Limits) -> Iterator[None]:
    """Within, every race keeps to these."""
    global _limits
    before, _limits = _limits, limits
    try:
        yield
    finally:
        _limits = before


def at_most(steps: int) -> int:
    """So many, or fewer where the study may run no more."""
    return steps if _limits.steps is None else min(steps, _limits.steps)


def race(problem: str, optimizers: Sequence[str]) -> Mapping[str, Run]:
    """Runs the optimizers, all tuned alike, and prints the cost to the tightest target reached.

    Returns:
      The run of the first seed, by the optimizer's name, with a column for whatever was recorded
      at each step (`step`, `value`, `grad_norm`, `measure`, `seconds`, diagnostics).
    """
    chosen = [OPTIMIZERS[name] for name in optimizers]
    plan = Plan([PROBLEMS[problem]], chosen, _limits.seeds, _limits.steps)
    with Bar(plan.count_parts()) as bar:
        comparison = Comparison(plan, Store(_limits.folder / problem, _limits.fresh), bar)
        comparison.run()
    (results,) = comparison.results
    results.finish()
    target = target_name(results.problem, results.target)
    table = markdown_table(shown(results.table, results.target))
    print(f"{results.problem.title}, to {target}:\n\n{table}\n")
    print(" ".join([verdict(results), *remarks(results)]), plan.tuning_budget())
    return {run.optimizer: run for run in results.runs if run.seed == 0}


def show(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table; numbers with as many digits as say something."""
    cell = lambda entry: entry if isinstance(entry, str) else number(float(entry))
    frame = pd.DataFrame([list(map(cell, row)) for row in rows], columns=list(header))
    print("\n" + markdown_table(frame))
