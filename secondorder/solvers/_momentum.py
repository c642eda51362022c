"""Momentum: a solver with the running average of the gradients in place of the gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver
from secondorder.tree import Params


class Averaged(NamedTuple):
    """The mean of the gradients, their number, and the memory of the inner solver."""

    mean: Params
    count: jax.Array
    inner: Any


@settings.checked(decay=settings.MOMENTUM)
def momentum(solver: Solver, decay: tree.Real = 0.9, debias: bool = True) -> Solver:
    """``solver`` with the first moment ``m`` in place of the gradient: ``d = argmin m·d + ½ d·Bd``.

    The mean is stored in the coordinates of the parameters, so a change of the curvature's basis
    needs no rotation. The predicted change is computed with the mean.

    Args:
      solver: any solver, such as ``apply_inverse()``.
      decay: decay of the exponential moving average, per step.
      debias: whether to divide by ``1 − decay^steps``, the bias of an average that starts at zero.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> second = so.running(so.curvature.gradient(), so.curvature.diagonal(jnp.sqrt), decay=0.999)
      >>> first = so.solvers.momentum(so.solvers.apply_inverse(), 0.9)
      >>> adam = so.scale_by_curvature(second, first, so.trust.fixed(1e-8))
    """

    def init(params: Params) -> Averaged:
        zeros = tree.accumulator(tree.zeros_like(params))
        return Averaged(zeros, jnp.zeros((), jnp.int32), solver.init(params))

    def prepare(quadratic: Quadratic, memory: Averaged):
        mean = tree.running_mean(memory.mean, quadratic.grad, decay, memory.count, debias)
        factors, inner, cost = solver.prepare(quadratic._replace(grad=mean), memory.inner)
        return factors, Averaged(mean, memory.count + 1, inner), cost

    def solve(quadratic: Quadratic, factors: Any, memory: Averaged, scale: jax.Array):
        averaged = quadratic._replace(grad=memory.mean)
        step, inner = solver.solve(averaged, factors, memory.inner, scale)
        # A small mean does not prove a small gradient.
        unknown = jnp.full_like(step.report.optimality, jnp.inf)
        step = step.reporting(optimality=unknown, full=jnp.zeros_like(step.report.full))
        return step, memory._replace(inner=inner)

    return solver._replace(
        init=init,
        solve=solve,
        prepare=prepare,
        remember=lambda memory, taken: memory._replace(inner=solver.remember(memory.inner, taken)),
        measure=lambda factors, memory, d: solver.measure(factors, memory.inner, d),
        measures=False,
    )
