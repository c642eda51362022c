"""The eigenmodes of a quadratic, each on its own way to zero, one panel per optimizer."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.engine import Run
from experiments.figures.style import styled
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Picture, Problem

PREFIX = "mode_"  # of the columns that hold the coefficients
FLOOR = 1e-9
COLUMNS = 3


def eigenmodes() -> Picture:
    """The picture of a quadratic whose coefficients are recorded as mode_<eigenvalue>."""

    @styled
    def draw(problem: Problem, runs: Sequence[Run]) -> Figure:
        rows = -(-len(runs) // COLUMNS)
        figure = Figure(figsize=(12.5, 0.9 + 2.7 * rows), layout="constrained")
        figure.suptitle(f"{problem.title}, mode by mode", fontsize=14, fontweight="bold")
        panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axes, run in zip(panels.flat, runs, strict=False):
            for name, colour in _coloured(run):
                size = np.maximum(np.abs(run.columns[name]), FLOOR)
                label = f"eigenvalue {float(name.removeprefix(PREFIX)):g}"
                axes.plot(run.columns["step"] + 1, size, color=colour, label=label)
            axes.set(xscale="log", yscale="log", ylim=(FLOOR / 2, 20))
            axes.set_title(OPTIMIZERS[run.optimizer].label, fontsize=11)
        for axes in panels.flat[len(runs) :]:
            axes.set_visible(False)
        for axes in panels.flat[max(0, len(runs) - COLUMNS) : len(runs)]:  # the last of each column
            axes.set_xlabel("Steps, plus one")
            axes.tick_params(labelbottom=True)
        figure.supylabel("Size of the coefficient")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return figure

    return Picture(
        "modes",
        "The coefficients of five eigenvectors, all one at the start. Gradient descent takes away "
        "the steep ones first and waits for the flat ones; a method that knows the curvature "
        f"treats all alike. What is below {FLOOR:g} is drawn there.",
        draw,
    )


def _coloured(run: Run) -> list[tuple[str, tuple[float, ...]]]:
    """The columns of the modes, from dark to light as the eigenvalue grows."""
    modes = (name for name in run.columns if name.startswith(PREFIX))
    names = sorted(modes, key=lambda name: float(name.removeprefix(PREFIX)))
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(names)))
    return [(name, tuple(shade)) for name, shade in zip(names, shades, strict=True)]
