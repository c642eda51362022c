"""Newton's method with a cubic term in place of a trust region."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import exact
from secondorder.operators import hessian
from secondorder.solvers import Solver, exact_cubic
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, cubic
from secondorder.trust._policy_of import policy_of


@settings.checked()
def cubic_newton(
    *, trust: Trust | Real = 0.0, solver: Solver | None = None
) -> optax.GradientTransformationExtraArgs:
    """``d = argmin g·d + ½ d·∇²f d + σ/3 ‖D d‖³``, σ adapted by the gain ratio.

    The cubic term bounds the model's error where the Hessian is Lipschitz, which gives Newton's
    method its best worst-case rate, O(ε^-3/2) steps to a gradient of size ε. Inside
    :func:`secondorder.minimize` a rejected step costs no new products. ``Dᵢ²`` is the largest
    curvature along parameter i so far, so units do not matter.

    Args:
      trust: a policy that gives a cubic weight, or the σ that ``trust.cubic(σ)`` starts from, in
        the units of the objective over ``‖D d‖³``; 0 starts with Newton's step, and the first
        rejection gives the unit.
      solver: ``exact_cubic()`` (default: dense, O(n³)) or ``krylov_cubic()`` (products only).

    Raises:
      ValueError: a trust policy that gives no cubic weight.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)
      >>> bool(so.minimize(f, jnp.array([-1.2, 1.0]), so.cubic_newton()).success)
      True

    Source: Nesterov and Polyak (2006); Cartis, Gould and Toint (2011).
    """
    solver = exact_cubic() if solver is None else solver
    return scale_by_curvature(
        exact(hessian), solver, policy_of(trust, cubic, "cubic_newton", "cubic")
    )
