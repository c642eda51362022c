"""Hybrid curvature: Gauss-Newton while the objective falls fast, else the Hessian."""

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

FAST = 0.5  # relative decrease of the objective from which Gauss-Newton stays in use


class HybridState(NamedTuple):
    """Memory of :func:`hybrid`: the objective and the chosen curvature at the last point."""

    value: jax.Array
    newton: jax.Array


def hybrid() -> Curvature:
    """``JᵀMJ`` after a step that halves ``f`` or better, else ``∇²f``.

    Gauss-Newton leaves out ``Σ rᵢ ∇²rᵢ``. If the residuals vanish at the solution, f falls by a
    large factor at every step and this term does not matter. If they stay large, Gauss-Newton
    converges at a slow linear rate, and the Hessian is worth its cost.

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
