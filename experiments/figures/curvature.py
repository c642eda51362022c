"""What the methods reported on their way: damping, radius, gain, CG iterations, rejections."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from experiments.engine import Run
from experiments.figures.style import decades, legend_below, legend_entries, line, spread, styled
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem

COLUMNS = 3
GAINS = (-1.0, 3.0)  # what lies outside is drawn at the edge

Series = Callable[[Run], np.ndarray | None]


def _column(run: Run, name: str) -> np.ndarray | None:
    """From step 1 on: nothing was done yet where the run began."""
    found = run.columns.get(name)
    return None if found is None else found[1:]


def _scale(meaning: str) -> Series:
    def series(run: Run) -> np.ndarray | None:
        found = _column(run, "scale")
        if found is None or OPTIMIZERS[run.optimizer].scale != meaning:
            return None
        return np.where(np.isfinite(found) & (found > 0), found, np.nan)

    return series


def _gain(run: Run) -> np.ndarray | None:
    """Infinite where the policy asked for none, and so nothing to draw."""
    found = _column(run, "gain")
    return None if found is None else np.where(found == np.inf, np.nan, np.clip(found, *GAINS))


def _iterations(run: Run) -> np.ndarray | None:
    """A direct solver reports one, always: that is no news."""
    found = _column(run, "iterations")
    return found if OPTIMIZERS[run.optimizer].step_class == "matrix-free" else None


def _accepted(run: Run) -> np.ndarray | None:
    """Of the steps tried so far, by those methods that ask for the gain."""
    rejections, gain = _column(run, "rejections"), _column(run, "gain")
    if rejections is None or gain is None or not np.isfinite(gain).any():
        return None
    return 1.0 - rejections / run.columns["step"][1:]


def _logarithmic(axes: Axes) -> None:
    decades(axes, "y")


def _around_one(axes: Axes) -> None:
    """Above the line the model promised too little, in the grey the objective rose."""
    axes.axhline(1.0, color="#555555", linewidth=1, zorder=0)
    axes.axhspan(GAINS[0] - 0.1, 0.0, color="#F0F0F0", zorder=0)
    axes.set_ylim(GAINS[0] - 0.1, GAINS[1] + 0.1)


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(0.0, 1.03)


def _whole(axes: Axes) -> None:
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


class Panel(NamedTuple):
    """One diagnostic: its numbers from step 1 on, or None for a run that has no such thing."""

    title: str
    label: str
    series: Series
    finish: Callable[[Axes], None]


PANELS = (
    Panel("Damping", "λ after the step", _scale("damping"), _logarithmic),
    Panel("Trust region", "Radius Δ after the step", _scale("radius"), _logarithmic),
    Panel("Gain ratio", "Actual / predicted decrease", _gain, _around_one),
    Panel("Inner iterations", "Iterations of CG in the step", _iterations, _whole),
    Panel("Accepted steps", "Part of all steps so far", _accepted, _from_zero),
)


@styled
def curvature_figure(problem: Problem, runs: Sequence[Run]) -> Figure | None:
    """Panels for what the runs recorded; None where that is nothing."""
    recorded = {panel: _recorded(panel, runs) for panel in PANELS}
    recorded = {panel: found for panel, found in recorded.items() if found}
    if not recorded:
        return None
    rows = -(-len(recorded) // COLUMNS)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(13.5, 3.9 * rows + 0.6), layout=layout)
    figure.suptitle(problem.title, fontsize=14, fontweight="bold")
    places = list(figure.subplots(rows, COLUMNS, squeeze=False, sharex=True).flat)
    for axes, (panel, found) in zip(places, recorded.items(), strict=False):
        for run, numbers in found:
            steps = run.columns["step"][1:]
            label, style = OPTIMIZERS[run.optimizer].label, line(run.optimizer)
            axes.plot(steps, numbers, label=label, markevery=spread(steps), **style)
        axes.set(title=panel.title, xlabel="Iterations", ylabel=panel.label)
        decades(axes, "x")
        axes.tick_params(labelbottom=True)  # which a shared axis has in its last row alone
        panel.finish(axes)
    for axes in places[len(recorded) :]:
        axes.axis("off")
    if len(places) == len(recorded):
        legend_below(figure, columns=4)
    else:
        places[len(recorded)].legend(*legend_entries(figure), loc="center", handlelength=3.6)
    return figure


def _recorded(panel: Panel, runs: Sequence[Run]) -> list[tuple[Run, np.ndarray]]:
    """The runs that have any number for this panel."""
    series = [(run, panel.series(run)) for run in runs]
    return [(run, x) for run, x in series if x is not None and np.isfinite(x).any()]
