"""Paths through a function of two parameters: over its contours, and on its surface."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LightSource, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from experiments.engine import Run
from experiments.figures.style import legend_below, line, styled
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Picture, Problem

X_RANGE = (-1.6, 1.6)
Y_RANGE = (-0.6, 2.2)
OFFSET = 3e-2  # heights are log10(f + OFFSET), so that the minimum has a bottom
LIFT = 0.05  # how far above the surface a path is drawn
BETWEEN = 12  # points drawn per step, so that a path follows the ground
MANY = 120  # a path of more points than this is drawn thin and without markers

GROUND = LinearSegmentedColormap.from_list(
    "ground", ["#16324a", "#2f6f86", "#7fb0ac", "#cfdccb", "#f6f2e4"]
)

Value = Callable[[Any, Any], Any]


def _heights(value: Value, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(*X_RANGE, points), np.linspace(*Y_RANGE, points))
    return x, y, np.log10(value(x, y) + OFFSET)


def _path_style(run: Run) -> dict[str, Any]:
    many = len(run.columns["x"]) > MANY
    width = {"marker": None, "linewidth": 1.1} if many else {"linewidth": 2.0, "markersize": 5.5}
    return line(run.optimizer) | {"linestyle": "solid"} | width


def _title(run: Run) -> str:
    return (
        f"{OPTIMIZERS[run.optimizer].label}\n{int(run.columns['step'][-1]):,} steps, {run.status}"
    )


def paths_over_contours(value: Value) -> Picture:
    """One small map per optimizer: its path from the start to where it ended."""

    @styled
    def draw(problem: Problem, runs: Sequence[Run]) -> Figure:
        columns = min(3, len(runs))
        rows = -(-len(runs) // columns)
        figure = Figure(figsize=(4.3 * columns, 3.4 * rows + 0.5), layout="constrained")
        maps = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        x, y, height = _heights(value, 200)
        for axes, run in zip(maps.flat, runs, strict=False):
            axes.contourf(x, y, height, levels=22, cmap=GROUND, alpha=0.5).set_rasterized(True)
            axes.plot(run.columns["x"], run.columns["y"], **_path_style(run))
            axes.plot(
                run.columns["x"][0],
                run.columns["y"][0],
                "o",
                color="white",
                mec="black",
                ms=7,
                zorder=5,
            )
            axes.plot(1, 1, "*", color="white", markeredgecolor="black", markersize=14, zorder=6)
            axes.set_title(_title(run), fontsize=11)
            axes.set(xlim=X_RANGE, ylim=Y_RANGE, xticks=(-1, 0, 1), yticks=(0, 1, 2))
            axes.grid(visible=False)
        for axes in maps.flat[len(runs) :]:
            axes.set_visible(False)
        figure.supxlabel("x", fontsize=11)
        figure.supylabel("y", fontsize=11)
        figure.suptitle(f"{problem.title}: the way to the minimum", fontsize=14, fontweight="bold")
        return figure

    return Picture(
        "paths", "Each optimizer's path from the start (circle) to the minimum (star).", draw
    )


def paths_on_surface(value: Value) -> Picture:
    """The same paths on the surface, height and colour on a logarithmic scale."""

    @styled
    def draw(problem: Problem, runs: Sequence[Run]) -> Figure:
        figure = Figure(figsize=(11, 8.8))
        axes: Any = figure.add_axes((0.0, 0.13, 1.0, 0.86), projection="3d", computed_zorder=False)
        x, y, height = _heights(value, 180)
        shade = _lit(height)
        axes.plot_surface(
            x,
            y,
            height,
            facecolors=shade,
            rstride=1,
            cstride=1,
            linewidth=0,
            antialiased=False,
            rasterized=True,
            shade=False,
        )
        for run in runs:
            _draw_lifted(axes, run, value)
        _draw_ends(axes, runs[0], value)
        axes.set(
            xlabel="x", ylabel="y", xlim=X_RANGE, ylim=Y_RANGE, xticks=(-1, 0, 1), yticks=(0, 1, 2)
        )
        axes.set_zlabel("log₁₀ (f + 0.03)")
        axes.set_zticks((-1, 0, 1, 2))
        floor = height.min() - 0.9
        axes.contourf(
            x, y, height, levels=22, zdir="z", offset=floor, cmap=GROUND, alpha=0.55, zorder=-1
        )
        axes.set_zlim(floor, height.max())
        axes.set_box_aspect((1.4, 1.15, 0.6), zoom=1.22)
        axes.view_init(elev=58, azim=-86)
        for artist in (*axes.collections, *axes.lines):
            artist.set_clip_on(False)  # the axes are square, the picture is not
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_pane_color((1, 1, 1, 0))
        figure.suptitle(
            f"{problem.title}: paths on the surface", fontsize=14, fontweight="bold", y=0.98
        )
        legend_below(figure, columns=3)
        return figure

    return Picture(
        "surface", "The same paths on the surface; height and colour are the logarithm of f.", draw
    )


def _lit(height: np.ndarray) -> np.ndarray:
    """The colour of each height, a little darker away from the light."""
    colours = GROUND((height - height.min()) / np.ptp(height))
    light = LightSource(azdeg=300, altdeg=60).hillshade(height, vert_exag=0.05)
    colours[..., :3] *= (0.74 + 0.26 * light)[..., None]
    return colours


def _draw_lifted(axes: Any, run: Run, value: Value) -> None:
    """The path laid on the surface: between two steps it follows the ground below."""
    x, y = _densified(run.columns["x"]), _densified(run.columns["y"])
    inside = (x >= X_RANGE[0]) & (x <= X_RANGE[1]) & (y >= Y_RANGE[0]) & (y <= Y_RANGE[1])
    x, y = np.where(inside, x, np.nan), np.where(inside, y, np.nan)
    style = _path_style(run)
    width = style["linewidth"]
    outline = [Stroke(linewidth=width + 1.2, foreground="white", alpha=0.6), Normal()]
    marked = {"markevery": BETWEEN} if style["marker"] else {}
    name = OPTIMIZERS[run.optimizer].label
    axes.plot(
        x,
        y,
        np.log10(value(x, y) + OFFSET) + LIFT,
        label=name,
        path_effects=outline,
        **(style | marked),
    )


def _densified(column: np.ndarray) -> np.ndarray:
    places = np.arange(len(column))
    return np.interp(
        np.linspace(0, len(column) - 1, BETWEEN * (len(column) - 1) + 1), places, column
    )


def _draw_ends(axes: Any, run: Run, value: Value) -> None:
    for x, y, marker, size in (
        (run.columns["x"][0], run.columns["y"][0], "o", 8),
        (1.0, 1.0, "*", 16),
    ):
        z = np.log10(value(x, y) + OFFSET) + LIFT
        axes.plot(
            [x], [y], [z], marker, color="white", markeredgecolor="black", markersize=size, zorder=9
        )
