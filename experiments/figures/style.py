"""One look for every figure."""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.optimizers import OPTIMIZERS

DPI = 160
SETTINGS: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.5,
    "svg.hashsalt": "secondorder",  # the same figure gives the same file
}


def styled(draw):
    """Runs a drawing function under the settings, and leaves Matplotlib's own alone."""

    def drawn(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return drawn


def line(optimizer: str) -> dict[str, Any]:
    """Colour, dashes and marker of an optimizer's curve."""
    look = OPTIMIZERS[optimizer].look
    return {
        "color": look.colour,
        "linestyle": look.dashes,
        "marker": look.marker,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """All entries of one panel, under the figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        handlelength=3.6,
        columnspacing=1.8,
    )


@styled
def render(figure: Figure, kind: str) -> bytes:
    """The figure as PNG or SVG."""
    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(content, format=kind, dpi=DPI, metadata=metadata, facecolor="white")
    return content.getvalue()
