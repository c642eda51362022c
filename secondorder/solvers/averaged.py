"""Momentum: a solver that is handed the running average of the gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.quadratic import Quadratic
from secondorder.solvers.base import Solver, Step
from secondorder.tree import Params


class Averaged(NamedTuple):
    """The mean of the gradients, in their own coordinates, how many it is of, and the solver's."""

    mean: Params
    count: jax.Array
    inner: Any


def averaged(solver: Solver, decay: Any = 0.9, debias: bool = True) -> Solver:
    """``solver`` with the first moment ``m`` in place of the gradient: ``d = argmin m·d + ½ d·Bd``.

    The mean is kept in the coordinates of the parameters, so it needs no rotation where a curvature
    changes its basis. The model's predicted change is that of the mean.

    Args:
      solver: such as ``closed_form()``.
      decay: of the exponential moving average, per step.
      debias: whether the mean is of the gradients alone, or also of the zeros it starts from.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> second = so.running(so.curvature.gradient(), so.curvature.diagonal(jnp.sqrt), decay=0.999)
      >>> first = so.solvers.averaged(so.solvers.closed_form(), 0.9)
      >>> adam = so.scale_by_curvature(second, first, so.trust.fixed(1e-8))
    """

    def init(params: Params) -> Averaged:
        zeros = tree.accumulator(tree.zeros_like(params))
        return Averaged(zeros, jnp.zeros((), jnp.int32), solver.init(params))

    def update(quadratic: Quadratic, state: Averaged, scale: jax.Array) -> tuple[Step, Averaged]:
        mean = tree.running_mean(state.mean, quadratic.grad, decay, state.count, debias)
        step, inner = solver.update(quadratic._replace(grad=mean), state.inner, scale)
        return step, Averaged(mean, state.count + 1, inner)

    measure = lambda state, direction: solver.measure(state.inner, direction)
    return solver._replace(init=init, update=update, measure=measure)
