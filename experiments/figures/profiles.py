"""Performance and data profiles, drawn: how many problems are solved at what price."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.style import legend_below, styled

START = 1.0  # the best solver's ratio, or one unit of a budget


class Panel(NamedTuple):
    """One profile: where each solver's distribution function rises, and how high."""

    title: str
    label: str
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]


@styled
def profile_figure(
    title: str,
    share: str,
    panels: Sequence[Panel],
    styles: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Sequence[str]] = (),
) -> Figure:
    """The panels side by side; ``share`` names what is counted on their common upright axis.

    With ``rows`` of names the curves of each are in panels of their own, on the same axes.
    """
    everyone = rows or [list(dict.fromkeys(name for panel in panels for name in panel.curves))]
    figure = Figure(figsize=(13.5, 6.2 * len(everyone)), layout="constrained")
    figure.suptitle(title, fontsize=14, fontweight="bold")
    parts = figure.subfigures(len(everyone), 1, squeeze=False).flat
    for part, names in zip(parts, everyone, strict=True):
        axes = part.subplots(1, len(panels), sharey=True)
        for one, panel in zip(axes, panels, strict=True):
            _draw(one, panel, names, styles)
        axes[0].set_ylabel(share)
        legend_below(part, columns=4)
    return figure


def _draw(
    axes: Axes, panel: Panel, names: Sequence[str], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    end = 1.3 * max([x[-1] for x, _ in panel.curves.values() if len(x)], default=START)
    for name in names:
        x, y = panel.curves.get(name, (np.empty(0), np.empty(0)))
        last = y[-1] if len(y) else 0.0
        axes.step([START, *x, end], [0.0, *y, last], where="post", **styles[name])
    axes.set(xscale="log", xlim=(START, end), ylim=(0, 1.02), title=panel.title, xlabel=panel.label)
