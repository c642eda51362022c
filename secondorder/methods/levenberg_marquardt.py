"""Levenberg-Marquardt: Gauss-Newton, damped by what the last step gained."""

from __future__ import annotations

from typing import Any

import optax

from secondorder import trust
from secondorder.curvature import exact
from secondorder.operators import ggn
from secondorder.solvers import qr
from secondorder.transform import scale_by_curvature


def levenberg_marquardt(damping: Any = 1e-3) -> optax.GradientTransformationExtraArgs:
    """``d = argmin ½‖J d + r‖² + ½ λ ‖D d‖²``, λ adapted by the gain ratio.

    ``D`` is Moré's scaling (the running column norms of the Jacobian), so the units of parameters
    and residuals do not matter and λ has none. Steps that do not decrease the objective, or that
    reach NaN, are rejected: parameters stay, λ rises.

    Args:
      damping: the first λ, relative: 1 damps a parameter as strongly as its own column.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> r = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> so.least_squares(r, jnp.array([-1.2, 1.0]), so.levenberg_marquardt()).params.round(3)
      Array([1., 1.], dtype=float32)

    Source: Moré (1978) for scaling and solution; Nielsen (1999) for λ.
    """
    return scale_by_curvature(exact(ggn), qr(), trust.damping(damping))
