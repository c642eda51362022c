"""A picture of a fit: data, curve and band, and the residuals below."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from secondorder.optimize._regression import Regression

POINTS = 300  # of the curve


def plot(fit: Any, problem: Regression, axes: Any, level: float) -> Any:
    """See ``Fit.plot``."""
    x, y = np.asarray(problem.data.x), problem.data.y
    if not isinstance(y, jax.Array) or x.ndim != 1 or x.shape != y.shape or jnp.iscomplexobj(y):
        raise ValueError(
            "plot draws one real y over one x of numbers, each of the shape (m,). Draw others by "
            "confidence_band, which takes any x."
        )
    y, sigma = np.asarray(y), problem.data.sigma
    weighted = sigma is not None and np.shape(sigma) in ((), y.shape)
    errors = np.broadcast_to(np.asarray(sigma), y.shape) if weighted else None
    top, bottom = _new_axes() if axes is None else axes

    grid, curve, band = _curve(fit, problem, x, level)
    top.errorbar(x, y, errors, fmt="o", ms=3.5, lw=1, color="0.35", label="data", zorder=2)
    (line,) = top.plot(grid, curve, lw=1.8, color="C0", label="fit", zorder=3)
    if np.all(np.isfinite(band)):
        shade = {"color": line.get_color(), "alpha": 0.25, "lw": 0}
        top.fill_between(grid, *band, label=f"{100 * level:g} % band", zorder=1, **shade)
    top.set_ylabel("y")
    top.legend(frameon=False)

    rest = y - np.asarray(problem.task.model(fit.params, jnp.asarray(x)))
    rest = rest / errors if weighted else rest
    bottom.axhline(0, lw=1, color="C0", zorder=1)
    bottom.plot(x, rest, "o", ms=3.5, color="0.35", zorder=2)
    bottom.set_ylabel("residual / σ" if weighted else "residual")
    bottom.set_xlabel("x")
    return top, bottom


def _curve(fit: Any, problem: Regression, x: np.ndarray, level: float) -> tuple:
    """A grid with the curve and its band; the points of the data if the model takes no others."""
    sound, model = np.sort(x[np.isfinite(x)]), problem.task.model
    grid = np.linspace(sound[0], sound[-1], POINTS, dtype=x.dtype if x.dtype.kind == "f" else float)
    try:
        curve = np.asarray(model(fit.params, jnp.asarray(grid)))
        fits = curve.shape == grid.shape
    except (TypeError, ValueError):  # a model of these points alone
        fits = False
    if not fits:
        order = np.argsort(x)
        grid, curve = x[order], np.asarray(model(fit.params, jnp.asarray(x)))[order]
        band = [np.asarray(end)[order] for end in fit.confidence_band(jnp.asarray(x), level)]
        return grid, curve, np.asarray(band)
    return grid, curve, np.asarray(fit.confidence_band(jnp.asarray(grid), level))


def _new_axes() -> Any:
    """Axes for the curve and, smaller, for the residuals."""
    try:  # only here, since it is optional and slow to import
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError(
            "plot draws with matplotlib, which is not installed: pip install matplotlib. Or draw "
            "fit.confidence_band(x) by another library."
        ) from error
    sizes = {"height_ratios": (3, 1), "hspace": 0.06}
    _, axes = pyplot.subplots(2, 1, sharex=True, gridspec_kw=sizes, figsize=(6.4, 5.2))
    return axes
