"""How far from solved, against iterations, gradient-equivalents and seconds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from experiments.engine import Run
from experiments.figures.style import decades, legend_below, line, rows_of, spread, styled
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem

FLOOR = 1e-16  # an exact zero is drawn here

PANELS = (
    ("step", "Iterations", "By iteration"),
    ("gradient_equivalents", "Gradient-equivalents", "By arithmetic"),
    ("seconds", "Seconds, compilation excluded", "By time"),
)


@styled
def convergence_figure(problem: Problem, runs: Sequence[Run]) -> Figure:
    rows = rows_of(run.optimizer for run in runs)
    figure = Figure(figsize=(13.5, 5.4 * len(rows)), layout="constrained")
    figure.suptitle(problem.title, fontsize=14, fontweight="bold")
    for part, row in zip(figure.subfigures(len(rows), 1, squeeze=False).flat, rows, strict=True):
        _draw_row(part, problem, runs, row)
        legend_below(part, columns=4 if len(row) == 8 else 5)
    return figure


def _draw_row(
    figure: SubFigure, problem: Problem, runs: Sequence[Run], optimizers: Sequence[str]
) -> None:
    """These optimizers in all three panels, whose axes are those of all runs."""
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (column, label, title) in zip(panels, PANELS, strict=True):
        start = _axis_start(runs, column)
        for optimizer in optimizers:
            _draw(axes, [run for run in runs if run.optimizer == optimizer], column, start)
        axes.set(xlabel=label, title=title)
        decades(axes, "xy")
        end = max(float(run.columns[column][-1]) for run in runs)
        axes.set_xlim(start * 0.85, max(end, start) * 1.25)
        axes.label_outer()
    panels[0].set_ylabel(_measure_label(problem))
    _limit(panels[0], problem, runs)


def _measure_label(problem: Problem) -> str:
    if problem.measure != "suboptimality":
        return {"loss": "Training loss", "error": "Relative error of the solution"}[problem.measure]
    return r"Relative suboptimality  $(f - f^\star)\,/\,(f_0 - f^\star)$"


def _axis_start(runs: Sequence[Run], column: str) -> float:
    """Where step 0 is drawn on a logarithmic axis: left of everything else."""
    firsts = [run.columns[column][1] for run in runs if len(run.columns[column]) > 1]
    return 0.5 * float(min(firsts, default=1.0))


def _limit(axes: Axes, problem: Problem, runs: Sequence[Run]) -> None:
    if problem.measure != "suboptimality":
        finite = np.concatenate([run.columns["measure"] for run in runs])
        finite = finite[np.isfinite(finite)]
        start = max(float(run.columns["measure"][0]) for run in runs)
        axes.set_ylim(0.8 * finite.min(), 1.6 * start)
    else:
        axes.set_ylim(FLOOR / 2, 20)


def _draw(axes: Axes, runs: Sequence[Run], column: str, start: float) -> None:
    """The median over seeds, a band from least to greatest, and a cross where a run failed."""
    optimizer = runs[0].optimizer
    style = line(optimizer)
    grid, curves = _on_common_grid(runs, column, start)
    median = np.median(curves, axis=0)
    axes.plot(grid, median, label=_label(optimizer, runs), markevery=spread(grid), **style)
    if len(runs) > 1:
        axes.fill_between(
            grid, curves.min(0), curves.max(0), color=style["color"], alpha=0.18, linewidth=0
        )
    for run in runs:
        if run.failed:
            last = _last_finite(run)
            x, y = (
                max(float(run.columns[column][last]), start),
                max(float(run.columns["measure"][last]), FLOOR),
            )
            axes.plot(x, y, "x", color=style["color"], markersize=11, markeredgewidth=2.5, zorder=5)


def _label(optimizer: str, runs: Sequence[Run]) -> str:
    failures = sum(run.failed for run in runs)
    text = OPTIMIZERS[optimizer].label
    return f"{text} ({failures} of {len(runs)} failed)" if failures else text


def _last_finite(run: Run) -> int:
    return int(np.flatnonzero(np.isfinite(run.columns["measure"]))[-1])


def _on_common_grid(
    runs: Sequence[Run], column: str, start: float
) -> tuple[np.ndarray, np.ndarray]:
    """Every seed on the union of their x values; between its steps a seed stays where it was."""
    ends, series = [], []
    for run in runs:
        last = _last_finite(run) + 1
        x = np.maximum(run.columns[column][:last], start)
        series.append((x, np.maximum(run.columns["measure"][:last], FLOOR)))
        ends.append(x[-1])
    grid = np.unique(np.concatenate([x for x, _ in series]))
    grid = grid[grid <= np.median(ends)]
    curves = [y[np.searchsorted(x, grid, side="right") - 1] for x, y in series]
    return grid, np.stack(curves)
