"""The measurements and the fitted curves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.engine import Run
from experiments.figures.style import legend_below, line, styled
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Picture, Problem


def fitted_curve(curve: Callable) -> Picture:
    """The picture of a curve fit whose parameters are recorded as b1, b2, ..."""

    @styled
    def draw(problem: Problem, runs: Sequence[Run]) -> Figure:
        data = problem.load()
        figure = Figure(figsize=(9.5, 6.2), layout="constrained")
        axes = figure.subplots()
        grid = np.linspace(data["x"].min(), data["x"].max(), 400)
        axes.plot(
            data["x"], data["y"], "o", color="black", markersize=5, label="Measured", zorder=4
        )
        axes.plot(
            grid, curve(_parameters(runs[0], 0), grid), color="#BBBBBB", label="Start", zorder=1
        )
        for run in runs:
            style: dict[str, Any] = line(run.optimizer) | {"markevery": 40}
            axes.plot(
                grid,
                curve(_parameters(run, -1), grid),
                label=OPTIMIZERS[run.optimizer].label,
                **style,
            )
        axes.set(xlabel="Logarithm of electron density", ylabel="Electron mobility")
        axes.set_title("The curve each optimizer ends at")
        low, high = data["y"].min(), data["y"].max()
        axes.set_ylim(low - 0.1 * (high - low), high + 0.2 * (high - low))
        legend_below(figure, columns=3)
        return figure

    return Picture(
        "fit",
        "The curve each optimizer ends at. Where they coincide the last one hides the others; "
        "a curve that misses the points belongs to an optimizer that did not get there.",
        draw,
    )


def _parameters(run: Run, row: int) -> list[float]:
    names = sorted(name for name in run.columns if name.startswith("b") and name[1:].isdigit())
    return [float(run.columns[name][row]) for name in names]
