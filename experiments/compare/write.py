"""Writes what a comparison showed: records, summary, figures, configuration and report."""

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments import tuning
from experiments.compare.plan import Plan, command_line, versions
from experiments.compare.report import Illustration, html_report
from experiments.compare.run import Comparison, Results
from experiments.compare.tables import summary_markdown
from experiments.figures import convergence_figure, render
from experiments.problem import Picture
from experiments.records import records_csv
from experiments.summary import summary_csv

CONVERGENCE = Picture("convergence", "", convergence_figure)


class Written(NamedTuple):
    """The problems that have anything to show, and where the report is."""

    results: list[Results]
    report: Path


def write(comparison: Comparison, interrupted: bool) -> Written:
    """Everything but the runs themselves, which are on disk already."""
    store, command = comparison.store, command_line()
    finished = [results for results in comparison.results if results.runs]
    for results in finished:
        results.finish()
    store.write("records.csv", records_csv(run for results in finished for run in results.runs))
    store.write("summary.csv", summary_csv(row for results in finished for row in results.rows))
    store.write("summary.md", summary_markdown(finished))
    config = _config(comparison.plan, finished, command, interrupted)
    store.write("config.json", json.dumps(config, indent=2) + "\n")
    illustrations = {results.problem.name: _figures(comparison, results) for results in finished}
    page = html_report(finished, illustrations, command, versions(), interrupted)
    return Written(finished, store.write("report.html", page))


def _figures(comparison: Comparison, results: Results) -> list[Illustration]:
    problem, illustrations = results.problem, []
    first_seed = [run for run in results.runs if run.seed == 0]
    for picture in (CONVERGENCE, *problem.pictures):
        name = f"{problem.name}-{picture.name}"
        comparison.bar.set_description_str(f"{problem.name} · drawing {picture.name}")
        figure = picture.draw(problem, results.runs if picture is CONVERGENCE else first_seed)
        illustrations.append(Illustration(name, picture.caption, render(figure, "png")))
        comparison.store.write(f"figures/{name}.png", illustrations[-1].png)
        comparison.store.write(f"figures/{name}.svg", render(figure, "svg"))
        comparison.bar.update()
    return illustrations


def _config(plan: Plan, finished: list[Results], command: str, interrupted: bool) -> dict[str, Any]:
    return {
        "command": command,
        "interrupted": interrupted,
        "versions": versions(),
        "machine": platform.machine(),
        "devices": [device.device_kind for device in jax.devices()],
        "optimizers": [optimizer.name for optimizer in plan.optimizers],
        "tuning": {"trials": tuning.TRIALS, "seed": tuning.TUNING_SEED},
        "problems": {results.problem.name: _problem_config(plan, results) for results in finished},
    }


def _problem_config(plan: Plan, results: Results) -> dict[str, Any]:
    problem = results.problem
    return {
        "seeds": list(plan.seeds_of(problem)),
        "precision": "float64" if problem.float64 else "float32",
        "grad_norm_target": problem.grad_norm_target,
        "targets": problem.targets,
        "steps": {
            optimizer.name: plan.steps_of(problem, optimizer)
            for optimizer in plan.optimizers_of(problem)
        },
        "left_out": results.left_out,
        "tuning": {name: dataclasses.asdict(found) for name, found in results.tunings.items()},
    }
