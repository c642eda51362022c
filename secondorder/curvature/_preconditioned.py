"""Exact products of one curvature, approximate inverse of another."""

from __future__ import annotations

from typing import Any

from secondorder import settings
from secondorder.curvature._base import Curvature
from secondorder.operators._base import Operator, Preconditioned
from secondorder.tree import Params


@settings.checked()
def preconditioned(base: Curvature, approximation: Curvature) -> Curvature:
    """Products ``B v`` of ``base`` with ``(B + λ I)⁻¹ v`` of ``approximation``.

    ``optimal_scaling(apply_inverse())`` proposes a step with the approximate inverse and chooses
    its length with exact products. The gain ratio uses the exact model.

    Args:
      base: an exact curvature, such as ``exact(ggn)``.
      approximation: a curvature with ``solve``, such as ``curvature.layerwise(example)``.

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
