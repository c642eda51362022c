"""What many runs say of each solver, as tables."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.benchmarks.arena import GIVEN, Run
from experiments.benchmarks.solvers import Solver
from experiments.benchmarks.tables import Table

Key = tuple[str, str, str]


def key(run: Run) -> Key:
    """The task of a run."""
    return run.problem, run.variant, run.start


def by_solver(runs: Sequence[Run], solvers: Mapping[str, Solver]) -> dict[str, list[Run]]:
    """The runs of each solver, in one order of tasks."""
    return {name: sorted((run for run in runs if run.solver == name), key=key) for name in solvers}


def results(title: str, runs: Sequence[Run], solvers: Mapping[str, Solver], unit: str) -> Table:
    """Who solved how many, who claimed falsely, and what it took."""
    grouped = by_solver(runs, solvers)
    best = max((sum(run.solved for run in group) for group in grouped.values()), default=0)
    rows = []
    for name, group in grouped.items():
        solved = [run for run in group if run.solved]
        count = f"{len(solved)}"
        rows.append(
            (
                solvers[name].label,
                f"**{count}**" if len(solved) == best else count,
                f"{sum(run.claimed for run in group)}",
                f"{sum(run.false for run in group)}",
                f"{sum(run.elsewhere for run in group)}",
                _median(solved, lambda run: min(run.digits, 16), ".1f"),
                _median(solved, lambda run: run.steps),
                _median(solved, lambda run: run.cost),
            )
        )
    tasks = len(next(iter(grouped.values()), []))
    header = (
        "solver",
        f"solved of {tasks}",
        "claims",
        "false",
        "unlisted",
        "digits",
        "iterations",
        unit,
    )
    return Table(title, header, rows)


def times(runs: Sequence[Run], solvers: Mapping[str, Solver]) -> Table:
    """Warm and compile time against the first solver."""
    grouped = by_solver(runs, solvers)
    first = next(iter(solvers))
    rows = []
    for name, group in grouped.items():
        both = [(a, b) for a, b in zip(group, grouped[first], strict=True) if a.solved and b.solved]
        warm = [a.seconds / b.seconds for a, b in both]
        compiling = [
            a.compile_seconds / b.compile_seconds
            for a, b in {
                a.problem: (a, b) for a, b in zip(group, grouped[first], strict=True)
            }.values()
        ]
        rows.append(
            (
                solvers[name].label,
                _median([run for run in group if run.solved], lambda run: 1e3 * run.seconds, ".3g"),
                f"{len(both)}",
                _geometric(warm),
                f"{np.median([run.compile_seconds for run in group]):.2f}",
                _geometric(compiling),
            )
        )
    label = solvers[first].label
    header = (
        "solver",
        "median ms of a solve",
        f"solved by it and {label}",
        f"time / {label}",
        "median s to compile",
        f"compile / {label}",
    )
    return Table("Time (float64, as given)", header, rows)


def missed(runs: Sequence[Run], solvers: Mapping[str, Solver]) -> Table:
    """False successes of ours, and what the first solver misses and another one solves."""
    first = next(iter(solvers))
    tasks: dict[tuple, list[Run]] = {}
    for run in runs:
        tasks.setdefault((run.precision.name, *key(run)), []).append(run)
    rows = []
    for (precision, problem, variant, start), group in tasks.items():
        task = f"{problem} {start}" + ("" if variant == GIVEN else f", {variant}")
        others = ", ".join(solvers[run.solver].label for run in group if run.solved)
        for run in group:
            lost = run.solver == first and others and not run.solved
            if lost or (run.false and solvers[run.solver].ours):
                ended = "**false success**" if run.false else run.status
                label = solvers[run.solver].label
                rows.append((task, precision, label, ended, f"{run.value:.6g}", others))
    label = solvers[first].label
    title = f"False successes of ours, and what {label} misses and another solves"
    return Table(title, ("problem", "in", "solver", "ended", "f", "solved by"), rows)


def _median(runs: Sequence[Run], of: Callable[[Run], float], form: str = ".0f") -> str:
    return format(float(np.median([of(run) for run in runs])), form) if runs else "-"


def _geometric(ratios: Sequence[float]) -> str:
    return f"{np.exp(np.mean(np.log(ratios))):.3g}×" if len(ratios) else "-"
