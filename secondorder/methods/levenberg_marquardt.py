"""Levenberg-Marquardt: Gauss-Newton, damped by what the last step gained."""

from __future__ import annotations

from typing import Any

import optax

from secondorder import trust
from secondorder.curvature import exact
from secondorder.operators import ggn
from secondorder.solvers import qr, svd_region
from secondorder.transform import scale_by_curvature


def levenberg_marquardt(
    damping: Any = None, *, acceleration: bool = True, search: bool = False
) -> optax.GradientTransformationExtraArgs:
    """``d = argmin ½‖J d + r‖² + ½ λ ‖D d‖²``, with λ ≥ 0 as large as trust demands.

    ``D`` is Moré's scaling (the running column norms of the Jacobian), so the units of parameters
    and residuals do not matter and λ has none. By default λ keeps the step within a trust region,
    ``‖D d‖ ≤ Δ``, and is zero where the whole Gauss-Newton step is: of the two the more robust.
    Given a ``damping``, λ itself moves by the gain ratio, for half of the linear algebra. Steps
    that do not decrease the objective, or that reach NaN, are rejected: parameters stay, λ rises.

    Args:
      damping: ``None`` for the trust region, or the first λ, relative: 1 damps a parameter as
        strongly as its own column.
      acceleration: whether to bend the step as the residuals bend along it, where that is safe, for
        one second derivative of the model along the step: a few steps instead of dozens along a
        curved valley. Least-squares and robust losses alone; others ignore it, and so do models
        that have no second derivative (``diagnostics`` gives the ``order``).
      search: whether to damp weakly, and to take of the path that the step begins, bent to fourth
        order, the first fraction 1, ½, ¼, ... that descends further than the next one; λ follows
        it, from ``damping`` or the precision to the power ¾. For fits of many parameters that
        depend on one another, such as an equation's solution by a network.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> r = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> so.least_squares(r, jnp.array([-1.2, 1.0]), so.levenberg_marquardt()).params.round(3)
      Array([1., 1.], dtype=float32)

    Source: Moré (1978) for scaling and region; Nielsen (1999) for a λ that is given; Transtrum and
    Sethna (2012) for the acceleration.
    """
    if search:
        return scale_by_curvature(exact(ggn), qr(4 if acceleration else 1), trust.searched(damping))
    if damping is None:
        return scale_by_curvature(exact(ggn), svd_region(2 if acceleration else 1), trust.radius())
    return scale_by_curvature(exact(ggn), qr(2 if acceleration else 1), trust.damping(damping))
