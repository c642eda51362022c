"""What the runs say: steps, gradient-equivalents and seconds to each target."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.engine import Run, Status
from experiments.problem import Problem
from experiments.records import to_csv

COSTS = ("step", "gradient_equivalents", "seconds")


@dataclass(frozen=True)
class Reached:
    """The median cost of reaching one target; infinite where half the seeds or more did not."""

    target: float
    count: int
    step: float
    gradient_equivalents: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One optimizer on one problem, over all its seeds."""

    problem: str
    optimizer: str
    seeds: int
    failures: int
    status: str
    reached: tuple[Reached, ...]
    steps: float
    value: float
    measure: float
    grad_norm: float
    held_out_accuracy: float
    gradient_equivalents_per_step: float
    milliseconds_per_step: float
    compile_seconds: float


def best_value(problem: Problem, runs: Iterable[Run]) -> float:
    """f*: the known or reference optimum, or the least value any run saw if that is lower still."""
    seen = [
        float(np.nanmin(run.columns["value"]))
        for run in runs
        if np.isfinite(run.columns["value"]).any()
    ]
    return min([*seen, *([] if problem.optimum is None else [problem.optimum])])


def add_measure(problem: Problem, runs: Sequence[Run], optimum: float) -> None:
    """Adds the column `measure` that targets and figures speak of, and names false convergence."""
    for run in runs:
        value = run.columns["value"]
        if problem.measure != "suboptimality":
            run.columns["measure"] = value if problem.measure == "loss" else run.columns["error"]
            continue
        run.columns["measure"] = np.maximum(value - optimum, 0.0) / (value[0] - optimum)
        if run.status == Status.CONVERGED and run.columns["measure"][-1] > problem.targets[0]:
            run.status = str(Status.ELSEWHERE)


def _first(run: Run, target: float) -> int | None:
    below = np.flatnonzero(run.columns["measure"] <= target)
    return int(below[0]) if below.size else None


def _reached(runs: Sequence[Run], target: float) -> Reached:
    firsts = [_first(run, target) for run in runs]
    costs = {
        name: statistics.median(
            math.inf if first is None else float(run.columns[name][first])
            for run, first in zip(runs, firsts, strict=True)
        )
        for name in COSTS
    }
    return Reached(target=target, count=sum(first is not None for first in firsts), **costs)


def _last(runs: Sequence[Run], name: str) -> float:
    return statistics.median(
        float(run.columns[name][-1]) if name in run.columns else math.nan for run in runs
    )


def _per_step(runs: Sequence[Run], name: str) -> float:
    rates = [
        run.columns[name][-1] / run.columns["step"][-1] for run in runs if run.columns["step"][-1]
    ]
    return float(statistics.median(rates)) if rates else math.nan


def summarise(problem: Problem, runs: Sequence[Run]) -> list[Row]:
    """One row per optimizer, in the order the runs come."""
    rows = []
    for optimizer in dict.fromkeys(run.optimizer for run in runs):
        mine = [run for run in runs if run.optimizer == optimizer]
        statuses = [run.status for run in mine]
        rows.append(
            Row(
                problem=problem.name,
                optimizer=optimizer,
                seeds=len(mine),
                failures=sum(run.failed for run in mine),
                status=", ".join(
                    status if len(set(statuses)) == 1 else f"{statuses.count(status)} {status}"
                    for status in dict.fromkeys(statuses)
                ),
                reached=tuple(_reached(mine, target) for target in problem.targets),
                steps=_last(mine, "step"),
                value=_last(mine, "value"),
                measure=_last(mine, "measure"),
                grad_norm=_last(mine, "grad_norm"),
                held_out_accuracy=_last(mine, "held_out_accuracy"),
                gradient_equivalents_per_step=_per_step(mine, "gradient_equivalents"),
                milliseconds_per_step=1e3 * _per_step(mine, "seconds"),
                compile_seconds=_compile(mine),
            )
        )
    return rows


def _compile(runs: Sequence[Run]) -> float:
    return float(statistics.median(run.compile_seconds for run in runs))


def summary_csv(rows: Iterable[Row]) -> str:
    """One line per problem, optimizer and target."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        whole = dataclasses.asdict(row)
        name = {"problem": whole.pop("problem"), "optimizer": whole.pop("optimizer")}
        for hit in whole.pop("reached"):
            costs = {("steps" if key == "step" else key): hit[key] for key in COSTS}
            last = {LAST.get(key, key): number for key, number in whole.items()}
            lines.append(name | {"target": hit["target"], "reached": hit["count"]} | costs | last)
    return to_csv(list(lines[0]) if lines else [], [map(_cell, line.values()) for line in lines])


LAST = {name: f"last_{name}" for name in ("steps", "value", "measure", "grad_norm")}


def _cell(content: Any) -> Any:
    return "" if isinstance(content, float) and not math.isfinite(content) else content


def winners(rows: Sequence[Row], target: int = -1) -> Mapping[str, list[Row]]:
    """For each cost, the optimizers that reached the target, cheapest first."""
    return {
        name: sorted(
            (row for row in rows if math.isfinite(getattr(row.reached[target], name))),
            key=lambda row: [getattr(row.reached[target], cost) for cost in (name, *COSTS)],
        )
        for name in COSTS
    }
