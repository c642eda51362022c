"""A diagonal system is solved by a division."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators.base import Diagonal, Identity
from secondorder.quadratic import Quadratic
from secondorder.solvers.base import Solver, Step, Stop, make_step


def diagonal() -> Solver:
    """``dᵢ = −gᵢ / (|Bᵢᵢ| + λ)`` for a diagonal ``B`` (or the identity).

    Entries below the rounding level of the largest are raised to it, so that nothing is divided by
    zero; absolute values keep the step a descent direction.

    Raises:
      TypeError: a curvature that is not diagonal.
    """

    def update(quadratic: Quadratic, state, damping: jax.Array) -> tuple[Step, tuple]:
        op, grad = quadratic.curvature, quadratic.grad
        if isinstance(op, Identity):
            entries = jax.tree.map(jnp.ones_like, grad)
        elif isinstance(op, Diagonal):
            entries = jax.tree.map(jnp.abs, tree.accumulator(op.entries))
        else:
            raise TypeError(
                f"The diagonal() solver needs a diagonal curvature, but got {type(op).__name__}. "
                "Use direct() or cg()."
            )
        peak = tree.max_abs(entries)
        floor = jnp.finfo(peak.dtype).eps * jnp.where(peak > 0, peak, 1)
        step = jax.tree.map(
            lambda g, b: -g / jnp.maximum(b + damping, floor.astype(b.dtype)), grad, entries
        )
        singular = (peak + damping) <= 0
        stopped = jnp.where(singular, Stop.SINGULAR.value, Stop.SOLVED.value)
        return make_step(step, quadratic(step), stopped=stopped), state

    return Solver(init=lambda params: (), update=update)
