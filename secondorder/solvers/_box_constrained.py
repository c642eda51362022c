"""Solver of a diagonal model in a box around the parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, no_memory
from secondorder.step import Report, Stop, make_step


def box_constrained() -> Solver:
    """``d = clip(−B⁻¹ g, −Δ, Δ)``, coordinate by coordinate.

    For a positive diagonal ``B`` this is the minimum of the model over ``|dᵢ| ≤ Δ``, a trust region
    in the maximum norm. Where the curvature is small against the gradient, ``|dᵢ| = Δ``.

    Raises:
      TypeError: a curvature without a closed-form inverse.

    Example:
      >>> import secondorder as so
      >>> sampled = so.running(so.curvature.hutchinson(), so.curvature.diagonal(), decay=0.99)
      >>> tx = so.scale_by_curvature(sampled, so.solvers.box_constrained(), so.trust.fixed(0.1))
    """

    def solve(quadratic: Quadratic, factors: tuple, memory: tuple, radius: jax.Array):
        del factors
        free = tree.negative(quadratic.curvature.solve(quadratic.grad, 0.0))
        inside = lambda d: jnp.clip(d, -radius.astype(d.dtype), radius.astype(d.dtype))
        step = jax.tree.map(inside, free)
        # The only reduction: it gives the length of the clipped step too, and detects NaN.
        peak = tree.max_abs(free)
        length = jnp.minimum(peak, radius.astype(peak.dtype))
        stopped = jnp.where(peak > radius, Stop.BOUNDARY.value, Stop.SOLVED.value)
        stopped = jnp.where(jnp.isfinite(length), stopped, Stop.NONFINITE.value)
        return make_step(step, quadratic(step), Report(stopped=stopped), length=length), memory

    measure = lambda factors, memory, direction: tree.max_abs(direction)
    return Solver(no_memory, solve, measure=measure, reads="radius")
