"""Grafting: the direction of one method at the length of another, with momentum on the step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from secondorder import settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, nothing_prepared, prepares, redirected
from secondorder.tree import Params


class Grafted(NamedTuple):
    """The averaged steps of the solver and of the other method, and the states of both."""

    step: Params
    onto: Params
    count: jax.Array
    inner: Any
    graft: optax.OptState


@settings.checked(onto=settings.TRANSFORMATION.or_none(), decay=settings.MOMENTUM)
def grafted(
    solver: Solver, onto: optax.GradientTransformation | None, decay: tree.Real = 0.0
) -> Solver:
    """``d = p ‖q‖/‖p‖`` for each leaf: ``p`` averages the steps of ``solver``, ``q`` of ``onto``.

    Both averages start from zero, without bias correction.

    Args:
      solver: source of the direction.
      onto: source of the length, an Optax transformation such as ``optax.scale_by_rss()`` (AdaGrad)
        or ``optax.identity()`` (gradient descent); ``None`` keeps the length of ``p``.
      decay: decay of both averages; 0 for no momentum.

    Example:
      >>> import optax, secondorder as so
      >>> solver = so.solvers.grafted(so.solvers.apply_inverse(), optax.scale_by_adam())

    Source: Agarwal et al. (2020); Anil et al. (2020), algorithm I.
    """
    graft = optax.identity() if onto is None else onto

    def init(params: Params) -> Grafted:
        zeros = lambda: tree.accumulator(tree.zeros_like(params))
        other = graft.init(zeros())
        return Grafted(zeros(), zeros(), jnp.zeros((), jnp.int32), solver.init(params), other)

    def prepare(quadratic: Quadratic, memory: Grafted):
        factors, inner, cost = solver.prepare(quadratic, memory.inner)
        return factors, memory._replace(inner=inner), cost

    def solve(quadratic: Quadratic, factors: Any, state: Grafted, scale: jax.Array):
        found, inner = solver.solve(quadratic, factors, state.inner, scale)
        with jax.numpy_dtype_promotion("standard"):  # Optax raises a decay to an integer count
            wanted, graft_state = graft.update(tree.accumulator(quadratic.grad), state.graft)
        mean = lambda old, new: tree.running_mean(old, new, decay, state.count, debias=False)
        p, q = mean(state.step, found.direction), mean(state.onto, wanted)
        new = Grafted(p, q, state.count + 1, inner, graft_state)
        step = p if onto is None else jax.tree.map(_at_length_of, p, q)
        return redirected(found, step, quadratic), new

    return solver._replace(
        init=init,
        solve=solve,
        prepare=prepare if prepares(solver) else nothing_prepared,
        remember=lambda memory, taken: memory._replace(inner=solver.remember(memory.inner, taken)),
        measure=lambda factors, memory, direction: tree.norm(direction),
    )


def _at_length_of(p: jax.Array, q: jax.Array) -> jax.Array:
    size = tree.norm(p)
    return p * (tree.norm(q) / jnp.where(size > 0, size, 1)).astype(p.dtype)
