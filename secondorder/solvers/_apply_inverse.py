"""Step of an operator with a closed-form damped inverse."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, no_memory
from secondorder.step import Report, Stop, make_step


def apply_inverse() -> Solver:
    """``d = −(B + λ I)⁻¹ g`` for an operator with ``solve(v, damping)``.

    Identity and diagonal operators divide (by absolute values, floored at rounding level, so the
    step always descends); quasi-Newton operators multiply by the inverse they keep.

    Raises:
      TypeError: a curvature without a closed-form inverse.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.curvature.identity(), so.solvers.apply_inverse(), so.trust.fixed())
    """

    def solve(quadratic: Quadratic, factors: tuple, memory: tuple, damping: jax.Array):
        del factors
        grad = quadratic.grad
        step = tree.negative(quadratic.curvature.solve(grad, damping))
        # (B + λ)d = −g gives d·Bd = −g·d − λ d·d without a product. Beside a diagonal every sum
        # over the parameters is expensive: both terms share one, and the length detects NaN.
        predicted = 0.5 * tree.vdot(tree.axpy(-damping, step, tree.accumulator(grad)), step)
        length = tree.norm(step)
        stopped = jnp.where(jnp.isfinite(length), Stop.SOLVED.value, Stop.NONFINITE.value)
        return make_step(step, predicted, Report(stopped=stopped), length=length), memory

    return Solver(no_memory, solve)
