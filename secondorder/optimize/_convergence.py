"""Convergence tests of the loop, in no unit of the parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import state as states
from secondorder import tree
from secondorder.optimize._records import Loop, Problem, Status
from secondorder.tree import Params

PATIENCE = 20  # updates in a row without a change before the status is STAGNATED
RUN, GROWTH = 10, 1.5  # steps in a row that gain nothing, and growth of a parameter by them
NOTHING = 1e-7  # a smaller promise, relative to the objective, is none, whatever the tolerance
HOPELESS = 10  # rejections in a row after which a promise below rounding ends the solve
REJECTIONS = 100  # in a row; a radius that falls by 4 each time falls by 1e60


def after_tests(loop: Loop, grad: Params, problem: Problem) -> Loop:
    """The loop with its status after all tests; ``grad`` is zero for held parameters."""
    dtype = loop.grad_norm.dtype
    size = jnp.abs(loop.value).astype(dtype)
    first = jnp.where(loop.first_size < 0, size, loop.first_size)
    loop = loop._replace(first_size=first)
    loop = loop._replace(flat=_decrease(grad, loop.curvature) <= little(loop, problem))
    # A solver that measures optimality may be at a saddle; a solver with a second-order model is
    # tested again after its next step.
    flat = loop.flat & ~states.models(loop.state)
    converged = (flat | (tree.max_abs(grad) == 0)) & ~states.measured(loop.state)

    status = jnp.where(loop.steps >= problem.max_steps, Status.MAX_STEPS.value, loop.status)
    # Either a trust policy rejected all steps, each shorter than the last; or the optimizer no
    # longer moves.
    tried = states.tried(loop.state)
    rounding = jnp.maximum(4 * jnp.finfo(loop.value.dtype).eps * size, states.rounding(loop.state))
    idle = loop.still >= jnp.where(tried, REJECTIONS, PATIENCE)
    # At a kink the region shrinks until nothing is left to gain.
    idle = idle | (tried & (loop.still >= HOPELESS) & (states.promised(loop.state) <= rounding))
    stuck = jnp.where(tried, Status.TRUST_LIMIT.value, Status.STAGNATED.value)
    status = jnp.where(idle, stuck, status)
    away = (loop.idle >= RUN) & _have_grown(loop)
    status = jnp.where(away, Status.AT_INFINITY.value, status)
    # The first idle update counts: after rejections a step is short because damping made it so.
    # Where the solver's own test held before such an update, it decides at this point, too.
    spent = (loop.still >= 2) & (loop.promised <= rounding) & ~loop.passed
    status = jnp.where(spent, Status.LIMIT_OF_PRECISION.value, status)
    status = jnp.where(converged, Status.CONVERGED.value, status)
    nonfinite = Status.NONFINITE.value
    status = jnp.where(loop.status == nonfinite, nonfinite, status).astype(jnp.int32)
    return loop._replace(status=status)


def _have_grown(loop: Loop) -> jax.Array:
    """Whether a parameter is larger than ever before the last steps, not only than at their start.

    A parameter whose solution is zero grows and falls by any factor at the level of rounding.
    """
    beyond = lambda x, most: jnp.any((jnp.abs(x) > GROWTH * most) & (most > 0))
    grown = jax.tree.leaves(jax.tree.map(beyond, loop.params, loop.largest))
    return jnp.any(jnp.stack(grown)) if grown else jnp.asarray(False)


def little(loop: Loop, problem: Problem) -> jax.Array:
    """The largest negligible decrease of the objective: ``tol² |f|``.

    Where f falls to zero, below ``tol |f₀|``, it is ``tol² max(|f|, min(|f₀|, 1))``: relative to a
    huge value at the start every decrease would be negligible.
    """
    size, first = jnp.abs(loop.value).astype(loop.first_size.dtype), loop.first_size
    falls = size < problem.tol * first
    return problem.tol**2 * jnp.where(falls, jnp.maximum(size, jnp.minimum(first, 1)), size)


def shown(loop: Loop, params: Params, value: jax.Array, grad: Params) -> Params:
    """Lower bounds of the curvatures, updated by a step ``s`` and its change ``y`` of the gradient.

    By Cauchy and Schwarz ``Hᵢᵢ ≥ yᵢ²/sᵀy`` where H is positive definite. The largest of these
    bounds is kept, halved at each further step, since curvature changes.
    """
    wide = tree.accumulator
    s = jax.tree.map(jnp.subtract, wide(params), wide(loop.last))
    y = jax.tree.map(jnp.subtract, wide(grad), wide(loop.grad))
    energy = tree.vdot(s, y)
    # If the step changes the objective by less than rounding, y is mostly rounding.
    visible = energy > jnp.finfo(value.dtype).eps * jnp.abs(value).astype(energy.dtype)
    visible = visible & (loop.steps > 0)
    unit = jnp.where(visible, energy, 1)

    def leaf(old, change):
        bound = change * (change / unit.astype(change.dtype))
        return jnp.where(visible, jnp.maximum(0.5 * old, bound), old)

    return jax.tree.map(leaf, loop.curvature, y)


def _decrease(grad: Params, curvature: Params) -> jax.Array:
    """``Σ gᵢ²/cᵢ``, twice the sum of the largest gains along single parameters.

    Independent of the parameters' units; infinite where a needed curvature is unknown.
    """

    def leaf(g, c):
        known = c > 0
        gain = g * (g / jnp.where(known, c, 1))
        return jnp.where(g == 0, 0, jnp.where(known, gain, jnp.inf))

    return tree.total(jax.tree.map(leaf, tree.accumulator(grad), curvature))
