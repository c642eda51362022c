"""Writes what a comparison showed: records, summary, figures, configuration and report."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from experiments import tuning
from experiments.bar import Bar
from experiments.compare.page import TITLE, Circumstances, latex, report
from experiments.compare.plan import Plan, command_line
from experiments.compare.profiles import CAPTION, profiles
from experiments.compare.publish import publish
from experiments.compare.run import Comparison, Results
from experiments.figures import (
    convergence_figure,
    curvature_figure,
    render_both,
    sensitivity_figure,
)
from experiments.problems import PROBLEMS
from experiments.provenance import machine, source_fingerprint, versions
from experiments.report import Illustration, to_html, to_markdown
from experiments.results import long, records
from experiments.store import Store

INTERRUPTED = "This comparison was interrupted; here is what had finished."
PROFILES = "profiles"


class Written(NamedTuple):
    """The problems that have anything to show, and where the report is, and its light copy."""

    results: list[Results]
    report: Path
    published: Path | None


class Drawn:
    """The figures of the problems, each drawn once, when its runs are known."""

    def __init__(self, store: Store, bar: Bar):
        self.store, self.bar = store, bar
        self._of: dict[str, list[Illustration]] = {}

    def __call__(self, results: Results) -> list[Illustration]:
        """Draws them, unless that was done."""
        name = results.problem.name
        if results.runs and name not in self._of:
            results.finish()
            self._of[name] = _figures(self.store, self.bar, results)
        return self._of.get(name, [])


def write(
    comparison: Comparison, interrupted: bool, drawn: Drawn, documents: Path | None = None
) -> Written:
    """Everything but the runs themselves, which are on disk already."""
    store, plan = comparison.store, comparison.plan
    finished = [results for results in comparison.results if results.runs]
    for results in finished:
        results.finish()
    notes = [INTERRUPTED] * interrupted + comparison.notes()
    made = Circumstances(command_line(), versions(), machine(), plan.tuning_budget(), notes)
    write_numbers(store, plan, finished, made)
    illustrations = {results.problem.name: drawn(results) for results in finished}
    across = _drawn(store, PROFILES, CAPTION, "performance profiles", profiles(finished))
    parts = report(finished, illustrations, across, made)
    store.write("report.md", to_markdown(TITLE, parts))
    page = store.write("report.html", to_html(TITLE, parts))
    _remove_figures_except(store, [part.name for part in parts if isinstance(part, Illustration)])
    published = publish(parts, documents) if documents and not interrupted else None
    return Written(finished, page, published)


def write_numbers(store: Store, plan: Plan, finished: list[Results], made: Circumstances) -> None:
    """Every record, the results table, and how all this came about."""
    table = pd.concat([results.table for results in finished]).replace(math.inf, math.nan)
    store.save_table("results", long(table))
    store.write("summary.csv", table.to_csv(index=False))
    runs = [run for results in finished for run in results.runs]
    store.write("records.csv", records(runs).to_csv(index=False))
    store.write("summary.tex", latex(finished))
    store.write("config.json", json.dumps(_config(plan, finished, made), indent=2) + "\n")


class Picture(NamedTuple):
    """A figure to be drawn, or None where there is nothing to draw."""

    name: str
    caption: str
    draw: Callable[[], Figure | None]


def _pictures(results: Results) -> Iterator[Picture]:
    problem, first_seed = results.problem, [run for run in results.runs if run.seed == 0]
    yield Picture("convergence", "", lambda: convergence_figure(problem, results.runs))
    yield Picture(
        "curvature",
        "What the methods reported at each step, from the first seed, where they report it. A gain "
        "ratio of 1 is a quadratic model that was right; below 0 the objective rose, and what lies "
        "outside the panel is drawn at its edge.",
        lambda: curvature_figure(problem, first_seed),
    )
    yield Picture(
        "sensitivity",
        "Every trial of the search, so also how much depends on its outcome.",
        lambda: sensitivity_figure(problem, results.tunings, results.optimum),
    )
    for own in problem.pictures:
        yield Picture(own.name, own.caption, lambda own=own: own.draw(problem, first_seed))


def _figures(store: Store, bar: Bar, results: Results) -> list[Illustration]:
    problem, illustrations = results.problem, []
    for picture in _pictures(results):
        bar.set_description_str(f"{problem.name} · drawing {picture.name}")
        name, alternative = f"{problem.name}-{picture.name}", f"{problem.title}: {picture.name}"
        drawn = _drawn(store, name, picture.caption, alternative, picture.draw())
        illustrations += [drawn] if drawn else []
        bar.update()
    return illustrations


def _drawn(
    store: Store, name: str, caption: str, alternative: str, figure: Figure | None
) -> Illustration | None:
    """The figure as two files, and as a part of the report."""
    if figure is None:
        return None
    png, svg = render_both(figure)
    store.write(f"figures/{name}.png", png)
    store.write(f"figures/{name}.svg", svg)
    return Illustration(name, alternative, caption, png)


def _remove_figures_except(store: Store, shown: Sequence[str]) -> None:
    """Those of earlier comparisons in this folder would mislead; files of other names stay."""
    ours = {
        f"{problem.name}-{picture.name}"
        for problem in PROBLEMS.values()
        for picture in _pictures(Results(problem))
    }
    for name in (ours | {PROFILES}) - set(shown):
        for end in ("png", "svg"):
            (store.folder / f"figures/{name}.{end}").unlink(missing_ok=True)


def _config(plan: Plan, finished: list[Results], made: Circumstances) -> dict[str, Any]:
    return {
        "command": made.command,
        "interrupted": INTERRUPTED in made.notes,
        "notes": made.notes,
        "source": source_fingerprint(),
        "versions": made.versions,
        "machine": made.machine,
        "optimizers": [optimizer.name for optimizer in plan.optimizers],
        "tuning": {"trials": tuning.TRIALS, "seed": tuning.TUNING_SEED},
        "problems": {results.problem.name: _problem_config(plan, results) for results in finished},
    }


def _problem_config(plan: Plan, results: Results) -> dict[str, Any]:
    problem = results.problem
    chosen = {run.optimizer: run.hyperparameters for run in results.runs if run.hyperparameters}
    return {
        "title": problem.title,
        "seeds": list(plan.seeds_of(problem)),
        "precision": "float64" if problem.float64 else "float32",
        "grad_norm_target": problem.grad_norm_target,
        "measure": problem.measure,
        "targets": problem.targets,
        **({"optimum": results.optimum} if problem.measure == "suboptimality" else {}),
        "steps": {
            optimizer.name: plan.steps_of(problem, optimizer)
            for optimizer in plan.optimizers_of(problem)
        },
        "chosen": chosen,
        "left_out": results.left_out,
        "tuning": {name: dataclasses.asdict(found) for name, found in results.tunings.items()},
    }
