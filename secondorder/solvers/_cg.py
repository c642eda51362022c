"""Conjugate gradients for the damped system: products only, no matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, is_on, nothing_prepared, prepares
from secondorder.solvers._conjugate_gradients import Iterate, advance, begin
from secondorder.solvers._preconditioners import Inverse, Preconditioner, as_preconditioner
from secondorder.step import Iterates, Report, Stop, make_step
from secondorder.tree import Params


class Progress(NamedTuple):
    """Argument of a stopping rule.

    Attributes:
      iterations: number of iterations done.
      residual: ``‖r‖ / ‖g‖``, both in the preconditioner's norm.
      model: values of the damped quadratic after each iteration, ``(max_steps + 1,)``; entry 0 is
        the value at the start.

    Example:
      >>> import secondorder as so
      >>> solver = so.solvers.cg(100, stop=lambda progress: progress.iterations >= 5)
    """

    iterations: jax.Array
    residual: jax.Array
    model: jax.Array


StopRule = Callable[[Progress], jax.Array]


@settings.checked()
def relative_residual(tolerance: float = 1e-5) -> StopRule:
    """Stop where ``‖r‖ ≤ tolerance · ‖g‖``.

    Example:
      >>> import secondorder as so
      >>> solver = so.solvers.cg(100, stop=so.solvers.relative_residual(1e-6))
    """
    return lambda progress: progress.residual <= tolerance


@settings.checked()
def relative_progress(tolerance: float = 5e-4) -> StopRule:
    """Stop where the last k iterations gained less than ``k · tolerance`` of the model's decrease.

    ``k = max(10, iterations/10)`` (Martens 2010, section 4.4). The step serves to reduce the model,
    and the model's value converges long before the residual.

    Example:
      >>> import secondorder as so
      >>> solver = so.solvers.cg(100, stop=so.solvers.relative_progress(1e-3))
    """

    def rule(progress: Progress) -> jax.Array:
        i = progress.iterations
        k = jnp.maximum(10, i // 10)
        now, before = progress.model[i], progress.model[jnp.maximum(i - k, 0)]
        return (i > k) & (now < 0) & (now - before > k.astype(now.dtype) * tolerance * now)

    return rule


class Memory(NamedTuple):
    """The last solution (for a warm start) and the memory of the preconditioner."""

    warm: Params
    preconditioner: Any


class _Carry(NamedTuple):
    at: Iterate
    model: jax.Array
    negative: jax.Array
    iterates: Iterates | None


@settings.checked()
def cg(
    max_steps: int = 100,
    stop: StopRule | None = None,
    preconditioner: Preconditioner | Inverse | None = None,
    warm_start: float = 0.0,
    iterates: int = 0,
) -> Solver:
    """``(B + λ I) d = −g`` by (preconditioned) conjugate gradients.

    A direction of non-positive curvature ends the iteration. The step is then the last iterate, a
    descent direction. At the first iteration it is the preconditioned negative gradient, with the
    length given by the magnitude of the curvature along it.

    Args:
      max_steps: maximum number of iterations.
      stop: ``Progress -> bool``; :func:`relative_residual` (default) or :func:`relative_progress`.
      preconditioner: ``(quadratic, damping) -> (r ↦ M⁻¹ r)``, M symmetric positive definite, such
        as :func:`known_inverse`; or :func:`nystrom`.
      warm_start: factor of the last accepted step to start from (Martens 2010: 0.95); 0 starts from
        zero. A start that does not decrease the model is dropped.
      iterates: number of iterates to keep, the latest of 1, 2, 3, 4, 6, 8, 11, ... (each 1.3 times
        the one before). With the objective, the step goes back along them while its value falls
        (Martens 2010, section 4.6). The warm start uses the last iterate.

    Example:
      >>> import secondorder as so
      >>> cg = so.solvers.cg(50, stop=so.solvers.relative_progress())
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), cg, so.trust.damping(1.0))
    """
    stop = relative_residual() if stop is None else stop
    helper = as_preconditioner(preconditioner)

    def init(params: Params) -> Memory:
        warm = tree.accumulator(tree.zeros_like(params)) if is_on(warm_start) else ()
        return Memory(warm, helper.init(params))

    def prepare(quadratic: Quadratic, memory: Memory):
        factors, inner, cost = helper.prepare(quadratic, memory.preconditioner)
        return factors, memory._replace(preconditioner=inner), cost

    def solve(quadratic: Quadratic, factors: Any, memory: Memory, damping: jax.Array):
        grad = quadratic.grad
        norm = tree.norm(grad)
        # The gradient is scaled to length one: squares of a tiny gradient would underflow.
        unit = jnp.where((norm > 0) & jnp.isfinite(norm), norm, 1)
        scaled = quadratic._replace(grad=tree.scale(1 / unit, grad))

        def product(v):
            return tree.axpy(damping, v, quadratic.curvature.mv(v))

        precondition = helper.inverse(quadratic, factors, damping)
        start = None
        if is_on(warm_start):
            start = _start(scaled, product, tree.scale(warm_start / unit, memory.warm))
        kept = _no_iterates(grad, iterates)
        final, stopped = _iterate(scaled.grad, product, precondition, start, stop, max_steps, kept)
        step, count = tree.scale(unit, final.at.step), final.at.count
        # One more product gives the true residual and the undamped model change, without drift.
        curved = quadratic.curvature.mv(step)
        predicted = tree.vdot(grad, step) + 0.5 * tree.vdot(step, curved)
        error = tree.add(tree.axpy(damping, step, curved), grad)
        finite = jnp.isfinite(norm) & tree.all_finite((step, curved))
        outcome = make_step(
            step,
            predicted,
            Report(
                iterations=count,
                products=count + (1 if start is None else 2),
                residual=tree.norm(error) / unit,
                stopped=jnp.where(finite, stopped, Stop.NONFINITE.value),
            ),
            candidates=_undamped(final.iterates, unit, damping),
        )
        return outcome, memory._replace(warm=step) if is_on(warm_start) else memory

    return Solver(init, solve, prepare if prepares(helper) else nothing_prepared)


def _start(quadratic, product, start):
    """The warm start and its product; zeros where it would increase the model."""
    image = product(start)
    model = tree.vdot(quadratic.grad, start) + 0.5 * tree.vdot(start, image)
    good = model < 0
    zeros = tree.zeros_like(start)
    return tree.where(good, start, zeros), tree.where(good, image, zeros)


def _no_iterates(like: Params, length: int) -> Iterates | None:
    if length == 0:
        return None
    # One spare row: every iteration writes it, and only the iterates to keep are counted.
    rows = jax.tree.map(lambda x: jnp.stack([jnp.zeros_like(x)] * (length + 1)), like)
    values = jnp.zeros(length + 1, tree.dtype(like))
    return Iterates(rows, values, jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32))


def _extended(
    kept: Iterates | None, step: Params, model: jax.Array, done: jax.Array
) -> Iterates | None:
    """The kept iterates, with the current one where it is to be kept."""
    if kept is None:
        return None
    place = kept.count % kept.predicted.shape[0]
    put = lambda rows, x: jax.lax.dynamic_update_index_in_dim(rows, x, place, axis=0)
    due = done == kept.due
    return Iterates(
        jax.tree.map(put, kept.steps, step),
        kept.predicted.at[place].set(model),
        kept.count + due.astype(jnp.int32),
        jnp.where(due, jnp.maximum(done + 1, 13 * done // 10 + 1), kept.due),
    )


def _undamped(kept: Iterates | None, unit: jax.Array, damping: jax.Array) -> Iterates | None:
    """The iterates in the units of the gradient, their model values without the damping term."""
    if kept is None:
        return None
    squares = jax.vmap(lambda d: tree.vdot(d, d))(kept.steps)
    predicted = unit**2 * (kept.predicted - 0.5 * damping * squares)
    return kept._replace(steps=tree.scale(unit, kept.steps), predicted=predicted)


def _iterate(grad, product, precondition, start, stop, max_steps, kept) -> tuple[_Carry, jax.Array]:
    """The last state of the iteration, and its status."""
    first = begin(grad, precondition, start)
    # Relative to the gradient, not to the first residual: a warm start may be accurate already.
    size = first.rz if start is None else tree.vdot(grad, precondition(grad))
    eps = jnp.finfo(size.dtype).eps
    model_value = lambda at: 0.5 * (tree.vdot(grad, at.step) - tree.vdot(at.step, at.residual))

    def solved(c: _Carry) -> jax.Array:
        left = jnp.sqrt(c.at.rz / jnp.where(size > 0, size, 1))
        # Always stop at rounding level: further iterations only amplify noise.
        return (c.at.rz <= eps**2 * size) | stop(Progress(c.at.count, left, c.model))

    def going(c: _Carry) -> jax.Array:
        return (c.at.count < max_steps) & ~c.negative & ~solved(c)

    def iterate(c: _Carry) -> _Carry:
        # After the first iteration, negative curvature ends the step at the current iterate.
        reach = lambda ray: jnp.where(ray.negative & (c.at.count > 0), 0, ray.length)
        at, ray = advance(c.at, product, precondition, reach)
        now = model_value(at)
        further = _extended(c.iterates, at.step, now, at.count)
        return _Carry(at, c.model.at[at.count].set(now), ray.negative, further)

    model = jnp.zeros(max_steps + 1, size.dtype).at[0].set(model_value(first))
    final = jax.lax.while_loop(going, iterate, _Carry(first, model, jnp.asarray(False), kept))
    stopped = jnp.where(solved(final), Stop.SOLVED.value, Stop.MAX_STEPS.value)
    return final, jnp.where(final.negative, Stop.NEGATIVE_CURVATURE.value, stopped)
