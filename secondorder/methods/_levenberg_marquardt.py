"""Levenberg-Marquardt: damped Gauss-Newton in a trust region."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from secondorder import settings
from secondorder.curvature import exact
from secondorder.operators import ggn
from secondorder.solvers import geodesic, qr, svd_region
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, radius
from secondorder.trust._policy_of import policy_of


@settings.checked()
def levenberg_marquardt(
    *, trust: Trust | Real = jnp.inf, acceleration: bool = True
) -> optax.GradientTransformationExtraArgs:
    """``d = argmin ½‖J d + r‖² + ½ λ ‖D d‖²``, with λ ≥ 0 from the trust policy.

    ``D`` is Moré's scaling (the running column norms of the Jacobian), so the units of parameters
    and residuals do not matter and λ has none. By default λ keeps the step within a trust region,
    ``‖D d‖ ≤ Δ``, and is zero where the whole Gauss-Newton step is. Steps that do not decrease the
    objective, or that reach NaN, are rejected: parameters stay, λ rises.

    Args:
      trust: a policy, or the Δ that ``trust.radius(Δ)`` starts from, in the units of ``‖D d‖``;
        infinity takes ten times the scaled length of the parameters, or, where they are zero, the
        length of the first step. ``trust.damping(λ)`` adapts λ by the gain ratio: half of the
        linear algebra, but less robust; λ is in the units of a column's squared norm: 1 damps a
        parameter as strongly as its own column. ``trust.line_search()`` damps weakly and searches
        along a path of fourth order; for fits of many dependent parameters, such as an equation's
        solution by a network.
      acceleration: whether to add the geodesic acceleration, where that is safe, from one second
        derivative of the model along the step: a few steps instead of dozens along a curved valley.
        Only for least-squares and robust losses; others ignore it, and so do models without second
        derivatives (``diagnostics`` gives the ``order``).

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.
      ValueError: a trust policy that gives neither a radius nor a damping.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> r = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> so.least_squares(r, jnp.array([-1.2, 1.0]), so.levenberg_marquardt()).params.round(3)
      Array([1., 1.], dtype=float32)

    Source: Moré (1978) for scaling and region; Nielsen (1999) for ``trust.damping``; Transtrum and
    Sethna (2012) for the acceleration.
    """
    policy = policy_of(trust, radius, "levenberg_marquardt", "radius", "damping")
    order = 1 if not acceleration else 4 if policy.searches else 2
    solver = svd_region() if policy.gives == "radius" else qr()
    return scale_by_curvature(exact(ggn), geodesic(solver, order), policy)
