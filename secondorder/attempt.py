"""Globalisation of a step: bounds, backtracking, line search, gain ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.objectives._objective import face_of, is_stationary
from secondorder.operators._modes import derivable
from secondorder.quadratic import Quadratic
from secondorder.step import Step
from secondorder.tree import Params


def within_box(
    step: Step, quadratic: Quadratic, params: Params, value_fn: Callable, measure: Callable
) -> Step:
    """The step cut at the objective's bounds, if any, with predicted change and length of the cut.

    Args:
      measure: the length of a direction in the solver's norm.
    """
    face = face_of(value_fn)
    if face is None:
        return step

    def leaf(d, x, low, high, free):
        x, low, high = (y.astype(d.dtype) for y in (x, low, high))
        inside = jnp.where(x + d < low, low - x, jnp.where(x + d > high, high - x, d))
        return jnp.where(free, inside, 0)

    cut = jax.tree.map(leaf, step.direction, params, face.lower, face.upper, face.free)
    same = jax.tree.map(lambda a, b: jnp.all(a == b), cut, step.direction)
    whole = jnp.all(jnp.stack(jax.tree.leaves(same))) if jax.tree.leaves(same) else True
    dtype = step.predicted.dtype
    predicted, length = jax.lax.cond(
        whole,
        lambda: (step.predicted, step.length),
        lambda: (quadratic(cut).astype(dtype), measure(cut).astype(dtype)),
    )
    # A step shortened by the bounds must not enlarge the region.
    boundary = step.boundary & (length >= 0.9 * step.length)
    return step._replace(direction=cut, predicted=predicted, length=length, boundary=boundary)


def backtracked(step: Step, params: Params, value_fn: Callable) -> Step:
    """The iterate of lowest value on the way to the step, or the step itself.

    Goes back from the step to earlier iterates as long as the value does not rise.
    """
    iterates = step.iterates
    if iterates is None:
        return step
    dtype, length = step.predicted.dtype, iterates.predicted.shape[0]
    kept = jnp.minimum(iterates.count, length - 1)

    def at(back: jax.Array) -> tuple[Params, jax.Array]:
        place = (iterates.count - back) % length
        row = lambda rows: jax.lax.dynamic_index_in_dim(rows, place, axis=0, keepdims=False)
        earlier = jax.tree.map(row, iterates.steps), iterates.predicted[place]
        return tree.where(back == 0, (step.direction, step.predicted), earlier)

    value_at = lambda back: _value_at(at(back)[0], params, value_fn, dtype)
    whole, none = value_at(jnp.zeros((), jnp.int32)), jnp.zeros((), jnp.int32)
    # Iterates of equal value, as of a solved system, keep the step.
    rounding = 10 * jnp.finfo(dtype).eps * jnp.where(jnp.isfinite(whole), jnp.abs(whole), 0)

    def going(carry):
        _, _, back, here, last = carry
        return (back < kept) & (here <= last + rounding)

    def go(carry):
        best, least, back, here, _ = carry
        earlier = value_at(back + 1)
        lower = earlier < least - rounding
        best, least = jnp.where(lower, back + 1, best), jnp.where(lower, earlier, least)
        return best, least, back + 1, earlier, here

    start = none, whole, none, whole, whole
    back, _, looked, *_ = jax.lax.while_loop(going, go, start)
    direction, predicted = at(back)
    return step._replace(
        direction=direction,
        predicted=predicted,
        length=tree.norm(direction),
    ).evaluating(looked + 1)


def _value_at(step: Params, params: Params, value_fn: Callable, dtype: Any) -> jax.Array:
    """The value after a step; infinity in place of NaN or −∞."""
    new = value_fn(tree.add(params, tree.cast(step, params))).astype(dtype)
    return jnp.where(jnp.isfinite(new), new, jnp.inf)


def along(step: Step, fraction: Any) -> Params:
    """The point ``α d + ½ α² a + ⅙ α³ b + ...`` of a step's path at the fraction α."""
    factor = fraction
    path = tree.scale(factor, step.direction)
    for order, x in enumerate(step.bends, 2):
        factor = factor * fraction / order
        path = tree.axpy(factor, x, path)
    return path


def bent(step: Step) -> Step:
    """The step to the end of the solver's path."""
    return step._replace(direction=along(step, 1.0)) if step.bends else step


def searched(
    step: Step, grads: Params, params: Params, value: Any, value_fn: Callable, halvings: int
) -> Step:
    """The first of the fractions 1, ½, ¼, ... of a step that descends further than the next one.

    Along the step's path, with ``m(αd) = α g·d + α² (m(d) − g·d)``. A step whose predicted decrease
    is below the rounding of the value stays whole: values cannot distinguish its fractions.
    """
    dtype = step.predicted.dtype
    start_value = jnp.asarray(value, dtype)
    visible = jnp.abs(step.predicted) > jnp.finfo(dtype).eps * jnp.abs(start_value)
    tried = lambda fraction: _value_at(along(step, fraction), params, value_fn, dtype)

    def rising(carry):
        _, here, further, count = carry
        found = (here < start_value) & (further >= here)
        return visible & ~found & (count < halvings)

    def halve(carry):
        fraction, _, further, count = carry
        return 0.5 * fraction, further, tried(0.25 * fraction), count + 1

    one = jnp.ones((), dtype)
    start = one, tried(one), tried(0.5 * one), jnp.zeros((), jnp.int32)
    fraction, _, _, count = jax.lax.while_loop(rising, halve, start)
    slope = tree.vdot(grads, step.direction).astype(dtype)
    return step._replace(
        direction=along(step, fraction),
        predicted=fraction * slope + fraction**2 * (step.predicted - slope),
        length=fraction * step.length,
        fraction=fraction,
    ).evaluating(count + 2)


def landed(value_fn: Callable, point: Params) -> Params:
    """The point projected onto the bounds, which removes rounding beyond them."""
    face = face_of(value_fn)
    return point if face is None else face.onto(point)


def gain(value_fn: Callable, params, value, grads, updates, predicted, lazy) -> jax.Array:
    """Actual over predicted change of the objective along ``updates``.

    Near a minimum the difference of two values is rounding; below 1e4 rounding errors the mean of
    the slopes at both ends, ``½ (g + g⁺)·d``, which is exact for a quadratic, takes its place. The
    slope at the trial is a forward derivative, computed with the value; a function with a reverse
    rule alone gets one. A step of zero has gain 1: where the gradient is zero, or the step
    rounds to zero, a policy has nothing to correct.
    """
    direction = tree.cast(updates, params)
    trial = landed(value_fn, tree.add(params, direction))
    dtype = predicted.dtype
    seen = is_stationary(value_fn)  # its derivatives have both modes already
    both = lambda: jax.jvp(value_fn if seen else derivable(value_fn, trial), (trial,), (direction,))
    new_value, new_slope = (value_fn(trial), None) if lazy else both()
    noise = (1e4 * jnp.finfo(jnp.result_type(new_value)).eps).astype(dtype)
    value = value_fn(params) if value is None else jnp.asarray(value)
    value, new_value = value.astype(dtype), new_value.astype(dtype)
    change = new_value - value
    near = jnp.abs(change) <= noise * jnp.abs(value)

    def by_slopes():
        slope = both()[1] if new_slope is None else new_slope
        slopes = 0.5 * (tree.vdot(grads, updates).astype(dtype) + slope.astype(dtype))
        return slopes, tree.max_abs(updates) == 0

    unknown = lambda: (jnp.zeros((), dtype), jnp.asarray(False))
    slopes, nothing = jax.lax.cond(near, by_slopes, unknown) if lazy else by_slopes()
    change = jnp.where(near, slopes, change)
    sound = jnp.isfinite(new_value) & jnp.isfinite(change)
    ratio = jnp.where(predicted < 0, change / jnp.where(predicted < 0, predicted, -1), -jnp.inf)
    ratio = jnp.minimum(ratio, jnp.finfo(dtype).max)  # +∞ means that no gain was computed
    return jnp.where(sound, jnp.where(nothing, 1, ratio), -jnp.inf)
