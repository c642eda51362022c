"""Newton-CG: Newton's method by products alone, in a trust region."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from secondorder import settings
from secondorder.curvature import exact
from secondorder.operators import hessian
from secondorder.solvers import Solver, steihaug
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust
from secondorder.trust._policy_of import policy_of
from secondorder.trust._regions import interpolated


@settings.checked(max_cg_steps=settings.COUNT)
def newton_cg(
    *,
    trust: Trust | Real = jnp.inf,
    max_cg_steps: int = 100,
    solver: Solver | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d ≈ argmin g·d + ½ d·∇²f d`` over ``‖D d‖ ≤ Δ``, by truncated conjugate gradients.

    Never forms the Hessian: a step costs a few products of about two gradients each, and memory
    for a few dozen vectors, so n may be as large as for a gradient. Negative curvature is followed
    to the boundary; a step that does not decrease the objective is rejected and Δ shrinks. ``D`` is
    one at first, then estimated from the products.

    Args:
      trust: a policy that gives a radius, or the Δ that ``trust.radius(Δ)`` starts from, in the
        units of ``‖D d‖``; infinity takes ten times the scaled length of the
        parameters, or, where they are zero, the length of the first step.
      max_cg_steps: largest number of products a step.
      solver: ``gltr()`` instead of Steihaug-Toint: it continues along the boundary, and a rejected
        step costs no products inside :func:`secondorder.minimize`, but it needs more memory.

    Raises:
      ValueError: a trust policy that gives no radius.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(jnp.exp(p) - p)
      >>> bool(so.minimize(f, jnp.ones(1000), so.newton_cg()).success)
      True

    Source: Steihaug (1983); Nocedal and Wright (2006), algorithms 4.1 and 7.2.
    """
    solver = steihaug(max_cg_steps) if solver is None else solver
    return scale_by_curvature(
        exact(hessian), solver, policy_of(trust, interpolated, "newton_cg", "radius")
    )
