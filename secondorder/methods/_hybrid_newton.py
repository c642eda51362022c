"""Hybrid of Gauss-Newton and Newton, for least squares with large residuals."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from secondorder import settings
from secondorder.curvature import hybrid
from secondorder.solvers import geodesic, hybrid_region
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, radius
from secondorder.trust._policy_of import policy_of


@settings.checked()
def hybrid_newton(*, trust: Trust | Real = jnp.inf) -> optax.GradientTransformationExtraArgs:
    """``d = argmin g·d + ½ d·B d`` over ``‖D d‖ ≤ Δ``, B Gauss-Newton's matrix or the Hessian.

    Gauss-Newton's matrix, by singular values and with geodesic acceleration, as long as each step
    removes half of the objective; else, and where the point may be a saddle, the Hessian. For least
    squares with nonvanishing residuals or a far start, where Gauss-Newton alone needs hundreds of
    steps. ``D`` is Moré's scaling, so rescaling parameters or residuals changes nothing. Both
    matrices are dense, O(n³) a step, and both are compiled.

    Args:
      trust: a policy that gives a radius, or the Δ that ``trust.radius(Δ)`` starts from, in the
        units of ``‖D d‖``; infinity takes ten times the scaled length of the parameters, or,
        where they are zero, the length of the first step.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.
      ValueError: a trust policy that gives no radius.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> t = jnp.arange(1.0, 5.0)
      >>> r = lambda p: jnp.exp(p * t) - jnp.array([2.0, 4.0, 6.0, 20.0])
      >>> bool(so.least_squares(r, jnp.array([0.5]), so.hybrid_newton()).success)
      True

    Source: Fletcher and Xu (1987); Moré and Sorensen (1983).
    """
    policy = policy_of(trust, radius, "hybrid_newton", "radius")
    return scale_by_curvature(hybrid(), geodesic(hybrid_region()), policy)
