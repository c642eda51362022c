"""Learning rate and momentum from the exact quadratic model, for any direction."""

from __future__ import annotations

from typing import Any

import optax

from secondorder import solvers, trust
from secondorder.curvature import exact, preconditioned, proposed
from secondorder.operators import ggn
from secondorder.transform import scale_by_curvature


def scale_by_quadratic_model(
    direction: optax.GradientTransformation, damping: Any = 0.1, *, adapt: bool = True
) -> optax.GradientTransformationExtraArgs:
    """``αΔ + μδ``, ``Δ`` proposed by any Optax transformation, ``δ`` the last step.

    α and μ minimise ``g·d + ½ d·(G + λ I) d``, with the Gauss-Newton matrix G multiplied exactly,
    for two tangents of the model. So there is no learning rate, and a direction that points uphill
    is turned around. Updates are the step itself.

    Args:
      direction: such as ``optax.scale_by_adam()`` or ``optax.contrib.scale_by_muon()``; its length
        does not matter. It sees gradients and parameters alone.
      damping: the first λ, in the units of the curvature; or the fixed one.
      adapt: whether λ follows the gain ratio, and a step that does not descend is rejected.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.

    Example:
      >>> import jax.numpy as jnp, optax, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.ones(3)), lambda p: jnp.array([1.0, 2.0, 3.0]) * p)
      >>> tx = so.scale_by_quadratic_model(optax.scale_by_adam())
      >>> bool(so.minimize(f, jnp.zeros(3), tx).success)
      True

    Source: Martens and Grosse (2015), sections 6.4 and 7, for K-FAC's direction.
    """
    model = preconditioned(exact(ggn), proposed(direction))
    policy = trust.damping(damping, lazy=True) if adapt else trust.fixed(damping)
    return scale_by_curvature(model, solvers.momentum(solvers.closed_form()), policy)
