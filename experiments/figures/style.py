"""One look for every figure."""

import io
import math
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator

from experiments.optimizers import OPTIMIZERS

DPI = 160
APART = 10  # curves that a reader can tell apart in one panel
MARKERS = 5  # per curve, evenly spread on the logarithmic axis
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


def spread(grid: np.ndarray) -> list[int]:
    """Indices of points about evenly spread on a logarithmic axis, the last among them."""
    wanted = np.geomspace(grid[0], grid[-1], MARKERS) if grid[-1] > grid[0] else grid[:1]
    return sorted({int(np.argmin(np.abs(np.log(grid / x)))) for x in wanted[1:]} or {0})


def decades(axes: Axes, names: str) -> None:
    """Logarithmic axes, with powers of ten as text: formulas and minor ticks take a third longer.

    Args:
      names: ``"x"``, ``"y"`` or ``"xy"``.
    """
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis: Axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(_Decades())
        axis.set_major_formatter(FuncFormatter(_power))
        axis.minorticks_off()


class _Decades(LogLocator):
    """Powers of ten, and between them where the axis holds one at most."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        found = np.asarray(super().tick_values(vmin, vmax))
        several = np.sum((vmin <= found) & (found <= vmax)) > 1
        return found if several else LogLocator(subs=(1, 2, 5)).tick_values(vmin, vmax)


def _power(x: float, place: int) -> str:
    exponent = round(math.log10(x)) if x > 0 else 0
    power = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{power}" if math.isclose(x, 10.0**exponent, rel_tol=1e-6) else f"{x:g}"


def rows_of(optimizers: Iterable[str]) -> list[list[str]]:
    """One row of panels while the curves stay apart; then a second, for those with fresh curvature.

    The first keeps what goes by gradients and by memories of them.
    """
    names = list(dict.fromkeys(optimizers))
    if len(names) <= APART:
        return [names]
    fresh = [name for name in names if OPTIMIZERS[name].step_class in ("matrix-free", "dense")]
    return [row for row in ([name for name in names if name not in fresh], fresh) if row]


def legend_entries(figure: Figure | SubFigure) -> tuple[list[Any], list[str]]:
    """Handles and labels of all panels, each label once."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)


def legend_below(figure: Figure | SubFigure, columns: int) -> None:
    """All entries of all panels, under the figure, in the most columns up to these that fit."""
    entries = legend_entries(figure)
    for count in range(columns, 0, -1):
        legend = figure.legend(
            *entries, loc="outside lower center", ncols=count, handlelength=3.6, columnspacing=1.8
        )
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


@styled
def render(figure: Figure, kind: str) -> bytes:
    """The figure as PNG or SVG."""
    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(content, format=kind, dpi=DPI, metadata=metadata, facecolor="white")
    return content.getvalue()


@styled
def render_both(figure: Figure) -> tuple[bytes, bytes]:
    """PNG and SVG of one layout; Matplotlib would draw once more to find it, and for each."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(DPI)  # as the picture has: sizes of words in pixels are rounded
        engine.execute(figure)
        figure.set_layout_engine("none")
    return render(figure, "png"), render(figure, "svg")
