"""Gauss-Newton while the objective falls fast, the Hessian once it does not."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.curvature._base import Curvature
from secondorder.objectives._base import objective_of
from secondorder.operators._gauss_newton import ggn
from secondorder.operators._hessian import hessian
from secondorder.operators._switch import Switch
from secondorder.tree import Params

FAST = 0.5  # a step that takes away this part of the objective is Gauss-Newton's to go on from


class HybridState(NamedTuple):
    """What :func:`hybrid` remembers: the objective at the last point, and what it took there."""

    value: jax.Array
    newton: jax.Array


def hybrid() -> Curvature:
    """``JᵀMJ`` after a step that took away half of ``f`` or more, else ``∇²f``.

    Gauss-Newton leaves out ``Σ rᵢ ∇²rᵢ``. Where the residuals vanish, f falls by a large factor at
    every step and nothing is missed; where they stay large, it stalls at a linear rate, and the
    Hessian is worth its price.

    Raises:
      TypeError: a plain function instead of an objective.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.curvature.hybrid(), so.solvers.hybrid_region(), so.trust.radius())

    Source: Fletcher and Xu (1987), with the Hessian in place of BFGS.
    """

    def init(params: Params) -> HybridState:
        return HybridState(jnp.full((), jnp.inf, tree.dtype(params)), jnp.asarray(False))

    def update(grads, state: HybridState, params: Params, value_fn):
        del grads
        objective = objective_of(value_fn).split("hybrid")
        gauss_newton = ggn(objective, params)
        value = jnp.asarray(objective.loss(gauss_newton.jacobian.outputs), state.value.dtype)
        newton = state.value - value < FAST * state.value
        return Switch(newton, hessian(value_fn, params), gauss_newton), HybridState(value, newton)

    return Curvature(init, update)
