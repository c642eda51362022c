"""Learning rate and momentum of any direction, from the exact quadratic model."""

from __future__ import annotations

import optax

from secondorder import settings, solvers
from secondorder.curvature import exact, preconditioned, proposed
from secondorder.operators import ggn
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, damping
from secondorder.trust._policy_of import policy_of


@settings.checked()
def scale_by_quadratic_model(
    direction: optax.GradientTransformation, *, trust: Trust | Real = 0.1
) -> optax.GradientTransformationExtraArgs:
    """``αΔ + μδ``, ``Δ`` proposed by any Optax transformation, ``δ`` the last step.

    α and μ minimise ``g·d + ½ d·(G + λ I) d`` with the exact Gauss-Newton matrix G, which costs two
    tangents of the model. So there is no learning rate, and an uphill direction is reversed.
    Updates are the step itself.

    Args:
      direction: such as ``optax.scale_by_adam()`` or ``optax.contrib.scale_by_muon()``; its length
        does not matter. It gets gradients and parameters alone.
      trust: a policy that gives a damping, or the λ that ``trust.damping(λ)`` starts from, in the
        units of the curvature. ``trust.fixed(λ)`` takes every finite step.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.
      ValueError: a trust policy that gives no damping.

    Example:
      >>> import jax.numpy as jnp, optax, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.ones(3)), lambda p: jnp.array([1.0, 2.0, 3.0]) * p)
      >>> tx = so.scale_by_quadratic_model(optax.scale_by_adam())
      >>> bool(so.minimize(f, jnp.zeros(3), tx).success)
      True

    Source: Martens and Grosse (2015), sections 6.4 and 7, for K-FAC's direction.
    """
    model = preconditioned(exact(ggn), proposed(direction))
    policy = policy_of(trust, damping, "scale_by_quadratic_model", "damping")
    policy = policy._replace(lazy=True)
    return scale_by_curvature(model, solvers.optimal_scaling(solvers.apply_inverse()), policy)
