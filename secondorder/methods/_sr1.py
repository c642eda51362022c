"""SR1: a quasi-Newton matrix that may be indefinite, in a trust region."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from secondorder import curvature, settings
from secondorder.solvers import exact_region
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, radius
from secondorder.trust._policy_of import policy_of


@settings.checked()
def sr1(*, trust: Trust | Real = jnp.inf) -> optax.GradientTransformationExtraArgs:
    """``d = argmin g·d + ½ d·Bd`` over ``‖d‖ ≤ Δ``, ``B`` from symmetric rank-one updates.

    ``B`` converges to the Hessian itself, negative curvature included, from one gradient a step;
    the dense trust region costs O(n³) arithmetic.

    Args:
      trust: a policy that gives a radius, or the Δ that ``trust.radius(Δ)`` starts from, in the
        units of the parameters; infinity takes the length of the first step.

    Raises:
      ValueError: a trust policy that gives no radius.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(jnp.cosh(p - 1.0))
      >>> bool(so.minimize(f, jnp.zeros(3), so.sr1()).success)
      True

    Source: Conn, Gould and Toint (1991); Nocedal and Wright (2006), algorithm 6.2.
    """
    return scale_by_curvature(
        curvature.sr1(), exact_region(scaled=False), policy_of(trust, radius, "sr1", "radius")
    )
