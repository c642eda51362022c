"""Paths through a function of two parameters: over its contours, and on its surface."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LightSource
from matplotlib.figure import Figure

from experiments.engine import Run
from experiments.figures.style import legend_below, line, styled
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem

X_RANGE = (-1.6, 1.6)
Y_RANGE = (-0.9, 2.2)
OFFSET = 1e-3  # heights are log10(f + OFFSET): the minimum has a bottom

Value = Callable[[Any, Any], Any]


def _heights(value: Value, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(*X_RANGE, points), np.linspace(*Y_RANGE, points))
    return x, y, np.log10(value(x, y) + OFFSET)


def _path(run: Run) -> tuple[np.ndarray, np.ndarray]:
    return run.columns["x"], run.columns["y"]


def paths_over_contours(value: Value) -> Callable[[Problem, Sequence[Run]], tuple[str, str, Figure]]:
    """One small map per optimizer: its path from the start to where it ended."""

    @styled
    def draw(problem: Problem, runs: Sequence[Run]) -> tuple[str, str, Figure]:
        columns = min(3, len(runs))
        rows = -(-len(runs) // columns)
        figure = Figure(figsize=(4.3 * columns, 3.5 * rows + 0.5), layout="constrained")
        maps = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        x, y, height = _heights(value, 300)
        for axes, run in zip(maps.flat, runs, strict=False):
            axes.contourf(x, y, height, levels=24, cmap="bone", alpha=0.55)
            style = line(run.optimizer) | {"linestyle": "solid"}
            path = _path(run)
            axes.plot(*path, markersize=5, linewidth=1.6, **(style | {"marker": _marker(style, len(path[0]))}))
            axes.plot(path[0][0], path[1][0], "o", color="white", markeredgecolor="black", markersize=7, zorder=5)
            axes.plot(1, 1, "*", color="white", markeredgecolor="black", markersize=14, zorder=6)
            steps = int(run.columns["step"][-1])
            axes.set_title(f"{OPTIMIZERS[run.optimizer].label}\n{steps:,} steps, {run.status}", fontsize=11)
            axes.set(xlim=X_RANGE, ylim=Y_RANGE)
            axes.grid(visible=False)
        for axes in maps.flat[len(runs) :]:
            axes.set_visible(False)
        figure.supxlabel("x", fontsize=11)
        figure.supylabel("y", fontsize=11)
        figure.suptitle(f"{problem.title}: the way to the minimum", fontsize=14, fontweight="bold")
        return "paths", "Each optimizer's path from the start (circle) to the minimum (star).", figure

    return draw


def _marker(style: dict[str, Any], points: int) -> Any:
    """Steps are marked where there are few enough to tell apart."""
    return style["marker"] if points <= 120 else None


def paths_on_surface(value: Value) -> Callable[[Problem, Sequence[Run]], tuple[str, str, Figure]]:
    """The same paths on the surface, height and colour on a logarithmic scale."""

    @styled
    def draw(problem: Problem, runs: Sequence[Run]) -> tuple[str, str, Figure]:
        figure = Figure(figsize=(11, 8.2))
        axes = figure.add_subplot(projection="3d", computed_zorder=False)
        x, y, height = _heights(value, 260)
        light = LightSource(azdeg=300, altdeg=50)
        colours = light.shade(height, cmap=_sequential(), blend_mode="soft", vert_exag=0.15)
        axes.plot_surface(
            x, y, height, facecolors=colours, rstride=1, cstride=1, linewidth=0, antialiased=False, zorder=1
        )
        for run in runs:
            px, py = _path(run)
            inside = (px >= X_RANGE[0]) & (px <= X_RANGE[1]) & (py >= Y_RANGE[0]) & (py <= Y_RANGE[1])
            px, py = np.where(inside, px, np.nan), np.where(inside, py, np.nan)
            style = line(run.optimizer) | {"linestyle": "solid"}
            style["marker"] = _marker(style, len(px))
            label = f"{OPTIMIZERS[run.optimizer].label}: {int(run.columns['step'][-1]):,} steps"
            lifted = np.log10(value(px, py) + OFFSET) + 0.06
            axes.plot(px, py, lifted, markersize=6, linewidth=2.2, label=label, zorder=3, **style)
        axes.set(xlabel="x", ylabel="y", zlabel="log10 f", xlim=X_RANGE, ylim=Y_RANGE)
        axes.set_box_aspect((1.25, 1.1, 0.75))
        axes.view_init(elev=42, azim=-118)
        return "surface", "The same paths on the surface; height and colour are the logarithm of the objective.", figure

    return draw


def _sequential() -> Any:
    import matplotlib

    return matplotlib.colormaps["YlGnBu_r"]
