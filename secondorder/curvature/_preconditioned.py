"""Known exactly through its products, approximately through its inverse."""

from __future__ import annotations

from typing import Any

from secondorder import settings
from secondorder.curvature._base import Curvature
from secondorder.operators._base import Operator, Preconditioned
from secondorder.tree import Params


@settings.checked()
def preconditioned(base: Curvature, approximation: Curvature) -> Curvature:
    """``mv`` of the one, ``solve`` of the other: an exact model with an approximate minimum.

    A solver takes from it what it needs: ``momentum(apply_inverse())`` proposes a step by the
    approximate inverse and chooses its length by exact products. The gain ratio compares with the
    exact model.

    Args:
      base: such as ``exact(ggn)``.
      approximation: whose operator knows its inverse, such as ``curvature.layerwise(example)``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.zeros((8, 2))), lambda w: jnp.ones((8, 3)) @ w)
      >>> model = so.curvature.preconditioned(so.exact(so.ggn), so.curvature.layerwise(f))
    """

    def init(params: Params) -> tuple[Any, Any]:
        return base.init(params), approximation.init(params)

    def update(grads, state, params, value_fn, scale=None) -> tuple[Operator, Any]:
        operators, states = [], []
        for curvature, memory in zip((base, approximation), state, strict=True):
            operator, memory = curvature.at(grads, memory, params, value_fn, scale)
            operators.append(operator)
            states.append(memory)
        return Preconditioned(*operators), tuple(states)

    needs = base.needs_value_fn or approximation.needs_value_fn
    return Curvature(init, update, needs, base.reads_scale or approximation.reads_scale)
