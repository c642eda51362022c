"""Newton's method in a trust region, solved exactly."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from secondorder import settings
from secondorder.curvature import exact
from secondorder.operators import hessian
from secondorder.solvers import exact_region
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust
from secondorder.trust._policy_of import policy_of
from secondorder.trust._regions import interpolated


@settings.checked()
def trust_region_newton(*, trust: Trust | Real = jnp.inf) -> optax.GradientTransformationExtraArgs:
    """``d = argmin g·d + ½ d·∇²f d`` over ``‖D d‖ ≤ Δ``, the global minimum, hard case included.

    Robust, for small problems: negative curvature is used, not removed, so saddle points are left.
    A step costs n Hessian-vector products and an eigendecomposition, O(n³); inside
    :func:`secondorder.minimize` a rejected step costs neither. ``Dᵢ²`` is the largest curvature
    along parameter i so far, so units do not matter.

    Args:
      trust: a policy that gives a radius, or the Δ that ``trust.radius(Δ)`` starts from, in the
        units of ``‖D d‖``; infinity takes ten times the scaled length of the
        parameters, or, where they are zero, the length of the first step.

    Raises:
      ValueError: a trust policy that gives no radius.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[1] ** 2  # a saddle at 0, minima at x = ±1
      >>> solution = so.minimize(f, jnp.array([0.0, 1.0]), so.trust_region_newton())
      >>> bool(solution.success), float(solution.value)
      (True, -0.25)

    Source: Moré and Sorensen (1983); Nocedal and Wright (2006), section 4.3.
    """
    return scale_by_curvature(
        exact(hessian),
        exact_region(),
        policy_of(trust, interpolated, "trust_region_newton", "radius"),
    )
