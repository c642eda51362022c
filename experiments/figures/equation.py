"""An equation in two variables: its solution, a network's, their difference, and errors by time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments.engine import Run
from experiments.figures.style import decades, legend_below, styled
from experiments.optimizer import Optimizer
from experiments.problem import Problem

DECADES = 4  # of the error that colours tell apart


@styled
def equation_figure(
    problem: Problem,
    found: np.ndarray,
    label: str,
    runs: Sequence[Run],
    optimizers: Mapping[str, Optimizer],
    variables: tuple[str, str] = ("t", "x"),
) -> Figure:
    """Four panels.

    Args:
      found: the network's values at the points on which the error is measured.
      label: what found them.
      runs: all seeds of all methods, with a column ``error``.
      variables: names of the two variables.
    """
    data = problem.load()
    points, exact = data["held_out_points"], data["held_out_values"]
    times, places = (np.unique(points[:, axis]) for axis in (0, 1))
    order = np.lexsort((points[:, 0], points[:, 1]))
    field = lambda values: np.asarray(values)[order].reshape(len(places), len(times))
    wrong = np.abs(field(found) - field(exact))

    figure = Figure(figsize=(13.5, 3.9), layout="constrained")
    figure.suptitle(problem.title, fontsize=14, fontweight="bold")
    panels = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.25))
    span: dict[str, Any] = {"vmin": exact.min(), "vmax": exact.max(), "cmap": "viridis"}
    scale = {"norm": LogNorm(10.0**-DECADES * wrong.max(), wrong.max()), "cmap": "magma"}
    shown = (
        ("Solution u", field(exact), span),
        (f"Network by {label}", field(found), span),
        ("Absolute difference", np.maximum(wrong, 10.0**-DECADES * wrong.max()), scale),
    )
    for axes, (title, values, colours) in zip(panels, shown, strict=False):
        drawn = axes.pcolormesh(times, places, values, rasterized=True, **colours)
        axes.set(title=title, xlabel=variables[0])
        if axes is panels[0]:
            axes.set(ylabel=variables[1])
        axes.grid(False)
        figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.8)
    _draw_errors(panels[-1], problem, runs, optimizers)
    legend_below(figure, columns=3)
    return figure


def _draw_errors(axes, problem, runs, optimizers) -> None:
    """A line for each seed, and the targets."""
    for target in problem.targets:
        axes.axhline(target, color="#999999", linewidth=0.8, linestyle=":")
    for run in runs:
        look = optimizers[run.optimizer].look
        label = optimizers[run.optimizer].label if run.seed == 0 else "_"
        seconds = np.maximum(run.columns["seconds"], 1e-2)
        axes.plot(
            seconds[1:], run.columns["error"][1:], color=look.colour, linewidth=1.4, label=label
        )
    decades(axes, "xy")
    axes.set(title="Error of u", xlabel="Seconds, compilation excluded")
