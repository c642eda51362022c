"""What many runs say of each solver, as tables."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from experiments.benchmarks.arena import GIVEN, Run
from experiments.benchmarks.solvers import Solver
from experiments.benchmarks.tables import times
from experiments.results import where

TASK = ["problem", "variant", "start"]
KEYS = [*TASK, "precision", "solver"]


def tabulated(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run, the precision by its name, and what its verdict comes to."""
    verdicts = ("solved", "false", "elsewhere")
    return pd.DataFrame(
        run._asdict()
        | {"precision": run.precision.name}
        | {name: getattr(run, name) for name in verdicts}
        for run in runs
    ).rename(columns={"value": "f"})


def results(runs: pd.DataFrame, solvers: Mapping[str, Solver], unit: str) -> pd.DataFrame:
    """Who solved how many, who claimed falsely, and what it took."""
    each = runs.groupby("solver")
    count = each.solved.sum()
    solved = runs[runs.solved].groupby("solver")
    median = lambda column, form: solved[column].median().map(f"{{:{form}}}".format)
    found = pd.DataFrame(
        {
            f"solved of {each.size().max()}": count.astype(str).where(
                count < count.max(), "**" + count.astype(str) + "**"
            ),
            "claims": each.claimed.sum().astype(str),
            "false": each.false.sum().astype(str),
            "unlisted": each.elsewhere.sum().astype(str),
            "digits": median("digits", ".1f"),
            "iterations": median("steps", ".0f"),
            unit: median("cost", ".0f"),
        }
    )
    return _named(found, solvers)


def timed(runs: pd.DataFrame, solvers: Mapping[str, Solver]) -> pd.DataFrame:
    """Warm and compile time against the first solver."""
    first = next(iter(solvers))
    label = solvers[first].label
    warm = runs[runs.solved].pivot(index=TASK, columns="solver", values="seconds")
    warm = warm.reindex(columns=list(solvers))
    compiled = runs.groupby(["problem", "solver"]).compile_seconds.last().unstack()
    ratios = lambda table: np.exp(np.log(table.div(table[first], axis=0)).mean()).map(times)
    found = pd.DataFrame(
        {
            "median ms of a solve": (1e3 * warm.median()).map("{:.3g}".format),
            f"solved by it and {label}": where(warm, warm[first].notna()).count().astype(str),
            f"time / {label}": ratios(warm),
            "median s to compile": compiled.median().map("{:.2f}".format),
            f"compile / {label}": ratios(compiled),
        }
    )
    return _named(found.replace({"nan": "-", "nan×": "-"}), solvers)


def missed(runs: pd.DataFrame, solvers: Mapping[str, Solver]) -> tuple[str, pd.DataFrame]:
    """False successes of ours, and what the first solver misses and another one solves."""
    first = next(iter(solvers))
    labels = {name: solver.label for name, solver in solvers.items()}
    task = ["precision", *TASK]
    others = runs[runs.solved].groupby(task).solver.agg(lambda x: ", ".join(x.map(labels)))
    table = runs.merge(others.rename("others").reset_index(), on=task, how="left")
    ours = table.solver.map(lambda name: solvers[name].ours)
    lost = (table.solver == first) & ~table.solved & table.others.notna()
    table = table[lost | (table.false & ours)].fillna({"others": ""})
    variant = table.variant.where(table.variant == GIVEN, ", " + table.variant).replace(GIVEN, "")
    shown = {
        "problem": table.problem + " " + table.start + variant,
        "in": table.precision,
        "solver": table.solver.map(labels),
        "ended": table.status.mask(table.false, "**false success**"),
        "f": table.f.map("{:.6g}".format),
        "solved by": table.others,
    }
    title = f"False successes of ours, and what {labels[first]} misses and another solves"
    return title, pd.DataFrame(shown)


def _named(found: pd.DataFrame, solvers: Mapping[str, Solver]) -> pd.DataFrame:
    """In the order of the solvers, by their labels; a dash where there is nothing."""
    found = found.reindex(list(solvers)).astype(object).fillna("-")
    found.insert(0, "solver", [solver.label for solver in solvers.values()])
    return found
