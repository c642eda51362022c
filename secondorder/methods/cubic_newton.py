"""Newton with a cubic term in place of a trust region."""

from __future__ import annotations

from typing import Any

import optax

from secondorder.curvature import exact
from secondorder.operators import hessian
from secondorder.solvers import Solver, exact_cubic
from secondorder.transform import scale_by_curvature
from secondorder.trust import cubic


def cubic_newton(
    initial_weight: Any = 0.0, solver: Solver | None = None
) -> optax.GradientTransformationExtraArgs:
    """``d = argmin g·d + ½ d·∇²f d + σ/3 ‖d‖³``, σ adapted by the gain ratio.

    The cubic term bounds the model's error where the Hessian is Lipschitz, which gives Newton's
    method its best worst-case rate, O(ε^-3/2) steps to a gradient of size ε. Inside
    :func:`secondorder.minimize` a rejected step costs no new products.

    Args:
      initial_weight: the first σ; 0 starts with Newton's step and learns the unit from the first
        rejection.
      solver: ``exact_cubic()`` (default: dense, O(n³)) or ``krylov_cubic()`` (products only).

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)
      >>> bool(so.minimize(f, jnp.array([-1.2, 1.0]), so.cubic_newton()).success)
      True

    Source: Nesterov and Polyak (2006); Cartis, Gould and Toint (2011).
    """
    solver = exact_cubic() if solver is None else solver
    return scale_by_curvature(exact(hessian), solver, cubic(initial_weight))
