"""The results table: what the runs show, and how its numbers are written.

One row for each optimizer on each problem and each of its targets, medians over seeds. A store
keeps it in long form, one number a row (`long`); pages show parts of it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.engine import Run, Status
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem

#: What a target costs, in words; the table has a column for each, infinite where it is missed.
COSTS = {"steps": "steps", "gradient_equivalents": "gradient-equivalents", "seconds": "seconds"}
KEYS = ["problem", "optimizer", "target"]
LAST = ("step", "value", "measure", "grad_norm", "held_out_accuracy")
MEASURES = {
    "suboptimality": "relative suboptimality",
    "loss": "training loss",
    "error": "relative error",
}


def best_value(problem: Problem, runs: Iterable[Run]) -> float:
    """f*: the known or reference optimum, or the least value any run saw if that is lower still."""
    values = [run.columns["value"] for run in runs]
    seen = [float(np.nanmin(value)) for value in values if np.isfinite(value).any()]
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


def records(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per step of every run; what does not apply is NaN."""
    frames = [
        pd.DataFrame(run.columns).assign(
            problem=run.problem, optimizer=run.optimizer, seed=run.seed
        )
        for run in runs
    ]
    whole = pd.concat(frames, ignore_index=True)
    named = ["problem", "optimizer", "seed"]
    return whole.reindex(columns=[*named, *whole.columns.drop(named)]).astype({"step": int})


def summarise(problem: Problem, runs: Sequence[Run]) -> pd.DataFrame:
    """The results table of one problem, optimizers in the order in which their runs come."""
    rows = [_of_run(run, target) for run in runs for target in problem.targets]
    seeds = pd.DataFrame(rows).assign(problem=problem.name).groupby(KEYS, sort=False)
    found = seeds.median(numeric_only=True)
    found["reached"] = seeds["steps"].agg(lambda steps: int(np.isfinite(steps).sum()))
    found["seeds"], found["failures"] = seeds.size(), seeds["failed"].sum()
    found["status"] = seeds["status"].agg(_statuses)
    return found.drop(columns="failed").reset_index()


def _of_run(run: Run, target: float) -> dict:
    columns = run.columns
    below = np.flatnonzero(columns["measure"] <= target)
    at = {name: columns[name][below[0]] if below.size else math.inf for name in _COLUMNS.values()}
    steps = columns["step"][-1]
    per_step = lambda name: columns[name][-1] / steps if steps else math.nan
    return {
        "optimizer": run.optimizer,
        "target": target,
        **{cost: float(at[column]) for cost, column in _COLUMNS.items()},
        **{
            f"last_{name}": float(columns[name][-1]) if name in columns else math.nan
            for name in LAST
        },
        "gradient_equivalents_per_step": per_step("gradient_equivalents"),
        "milliseconds_per_step": 1e3 * per_step("seconds"),
        "compile_seconds": run.compile_seconds,
        "status": run.status,
        "failed": run.failed,
    }


_COLUMNS = {cost: "step" if cost == "steps" else cost for cost in COSTS}


def _statuses(found: pd.Series) -> str:
    counts = found.value_counts(sort=False)
    return ", ".join(
        f"{status}" if len(counts) == 1 else f"{count} {status}" for status, count in counts.items()
    )


def where(table: pd.DataFrame, rows: Any) -> pd.DataFrame:
    """These rows alone; it tells the type checker that they are a table again."""
    found: Any = table[rows]
    return found


def long(table: pd.DataFrame, keys: Sequence[str] = KEYS) -> pd.DataFrame:
    """One number or word a row: keys, `quantity`, `value`."""
    return table.astype(object).melt(list(keys), var_name="quantity")


def judged_target(problem: Problem, table: pd.DataFrame) -> float:
    """The tightest target that any optimizer reached in most of its seeds."""
    reached = table.target[np.isfinite(table.steps)]
    return problem.targets[0] if reached.empty else min(reached, key=problem.targets[::-1].index)


def cheapest(table: pd.DataFrame, target: float, cost: str) -> pd.DataFrame:
    """Who reached a target, cheapest first."""
    there = where(table, (table.target == target) & np.isfinite(table[cost]))
    return there.sort_values([cost, *COSTS], kind="stable")


def target_name(problem: Problem, target: float) -> str:
    return f"{MEASURES[problem.measure]} ≤ {target:g}".replace("e-0", "e-")


def label(optimizer: str) -> str:
    return OPTIMIZERS[optimizer].label if optimizer in OPTIMIZERS else optimizer


def number(x: float) -> str:
    """Three digits, as short as they go."""
    if not math.isfinite(x):
        return "-"
    x = round(x, 9)
    if x == 0 or 0.01 <= abs(x) < 1e5:
        whole = abs(x) >= 100 or x == round(x)
        return f"{x:,.{0 if whole else 1 if abs(x) >= 10 else 2 if abs(x) >= 1 else 3}f}"
    return f"{x:.1e}"


def shown(table: pd.DataFrame, target: float) -> pd.DataFrame:
    """What a reader sees of one target."""
    rows = where(table, table.target == target)
    columns = {"optimizer": rows.optimizer.map(label)}
    columns |= {
        {"gradient_equivalents": "grad.-equiv."}.get(c, c): rows[c].map(number) for c in COSTS
    }
    columns["g.-e./step"] = rows.gradient_equivalents_per_step.map(number)
    columns["ms/step"] = rows.milliseconds_per_step.map(number)
    columns["compile s"] = rows.compile_seconds.map(number)
    if rows.last_held_out_accuracy.notna().any():
        columns["held-out"] = rows.last_held_out_accuracy.map("{:.1%}".format)
    if (rows.seeds > 1).any():
        columns["reached"] = [f"{a} of {b}" for a, b in zip(rows.reached, rows.seeds, strict=True)]
    steps = rows.last_step.map(number)
    return pd.DataFrame(columns | {"ended": rows.status + ", " + steps + " steps"})
