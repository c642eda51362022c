"""A proposed step at a point: the choice among its candidates, and the outcome of its trial."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.objectives._at_point import AtPoint
from secondorder.operators._modes import derivable
from secondorder.quadratic import Quadratic
from secondorder.step import Step
from secondorder.tree import Params
from secondorder.trust._base import Last, Trial

SAME = 1e3  # maximum difference of two values of one function at a point, in rounding errors
EDGE = 0.9  # a step longer than this fraction of the radius counts as on the boundary


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A solver's step at a point, before a trust policy has chosen and tried it.

    Attributes:
      step: the solver's step.
      quadratic: the model that the step minimises.
      params: the point.
      objective: the objective, with its bounds.
      value: its value at the point; ``None`` if not available.
      measure: a direction ↦ its length in the solver's norm.
      radius: the radius of the solver's region, or the scalar of a solver without one.
      watched: arrays that must be finite in an accepted step, such as the averages of a curvature.
      lazy: as in :class:`Trust`.
      solve: a scalar ↦ the solver's step for it, from the same factors.
      shift: ``g̃ − g``, the change of the gradient by an earlier part of an Optax chain; ``None``
        for none. Values and slopes are those of ``f + (g̃ − g)·d``, which has the gradient of the
        model, so that the gain ratio of a short step is one.

    Example:
      >>> import secondorder as so
      >>> stubborn = lambda attempt, state: (attempt.step, state)  # takes every step
      >>> policy = so.trust.fixed(0.1)._replace(update=stubborn)
    """

    step: Step
    quadratic: Quadratic
    params: Params
    objective: AtPoint
    value: Any
    measure: Callable[[Params], jax.Array]
    radius: jax.Array
    watched: Any = ()
    lazy: bool = False
    solve: Callable[[jax.Array], Step] | None = None
    shift: Params | None = None

    def is_finite_here(self) -> jax.Array:
        """Whether value and gradient at the point contain neither NaN nor infinity."""
        return tree.all_finite((self.quadratic.grad, jnp.asarray(self._value_here)))

    def whole(self) -> Step:
        """The step to the end of its path, without a choice and without bounds."""
        return self.step.along(1.0)

    def choose(self, halvings: int = 0) -> Step:
        """The candidate of the lowest value: of the solver's iterates, then of fractions.

        Args:
          halvings: maximum number of halvings in the fractions 1, ½, ¼, ...; 0 for the whole step.
        """
        step = self._best_iterate(self.step)
        step = self._best_fraction(step, halvings) if halvings else step.along(1.0)
        return self._within_bounds(step)

    def probe(self, radii: jax.Array, target: float) -> tuple[Step, jax.Array]:
        """The step of the largest of descending radii whose gain is at least ``target``.

        The last one if none has it. Where the value cannot show a predicted decrease, the second
        radius, so that rounding chooses none. The steps and the values are one batch.

        Args:
          radii: the second one is that of ``step``.

        Returns:
          The step and its radius.
        """
        solve = self.solve
        assert solve is not None
        steps = jax.vmap(lambda radius: self._within_bounds(solve(radius).along(1.0)))(radii)
        dtype = steps.predicted.dtype
        start = jnp.asarray(self._value_here, dtype)
        change = jax.vmap(self._value_after)(steps) - start
        falls = steps.predicted < 0
        gains = jnp.where(falls, change / jnp.where(falls, steps.predicted, -1), -jnp.inf)
        good = gains >= target
        first = jnp.where(jnp.any(good), jnp.argmax(good), len(radii) - 1)
        noise = SAME * jnp.finfo(dtype).eps * jnp.abs(start)
        visible = jnp.abs(steps.predicted[first]) > jnp.maximum(noise, self.step.rounding)
        chosen = jnp.where(visible, first, 1)
        step = jax.tree.map(lambda x: x[chosen], steps)
        # The preparation is charged to the solver's own step, which is the second here.
        own = self.step.report
        products = own.products - steps.report.products[1] + jnp.sum(steps.report.products)
        step = step.reporting(products=products, jacobians=own.jacobians)
        return step.evaluating(len(radii)), radii[chosen]

    def trial(self, step: Step, last: Last | tuple = ()) -> Trial:
        """The outcome of the step, and the gain of the last step on this objective."""
        taken = tree.cast(step.direction, self.params)
        return Trial(
            gain=lambda: self._gain(taken, step),
            predicted=step.predicted,
            length=step.length,
            boundary=step.length >= EDGE * self.radius.astype(step.length.dtype),
            # An infinite second moment gives a zero step at every later update; reject it.
            finite=tree.all_finite((self.quadratic.grad, taken, self.watched)),
            fraction=step.report.fraction,
            slope=lambda: tree.vdot(self.quadratic.grad, taken),
            elsewhere=self._judged(last) if self._looks_back(last) else lambda: math.inf,
        )

    def remembered(self, step: Step, gain: jax.Array, accepted: jax.Array, last: Any) -> Any:
        """The last accepted step, for the next objective: this step, or the one before."""
        if not self._looks_back(last):
            return last
        dtype = last.predicted.dtype
        here = jnp.asarray(self._value_here).astype(dtype)
        known = jnp.isfinite(gain)  # else none was computed, nor the value after the step
        # Of the objective itself, without what was added to its gradient.
        shift = jnp.asarray(self._shift_along(step.direction), dtype)
        predicted = step.predicted.astype(dtype)
        after = here + jnp.where(known, gain, 0) * predicted - shift
        value = jnp.where(accepted, jnp.where(known, after, jnp.inf), here)
        taken = tree.cast(step.direction, last.step), predicted - shift
        direction, change = tree.where(accepted, taken, (last.step, last.predicted))
        return Last(direction, change, value)

    def _looks_back(self, last: Any) -> bool:
        """Whether the objective may differ from that of the last step."""
        return isinstance(last, Last) and not self.objective.stationary

    def _judged(self, last: Any) -> Callable[[], jax.Array]:
        """``elsewhere`` of the trial; costs one more value if the objective has changed."""
        dtype = last.predicted.dtype
        here = jnp.asarray(self._value_here)
        # The value after a step is a difference, with the rounding of the larger value before.
        size = jnp.abs(here).astype(dtype) + jnp.abs(last.predicted)
        rounding = (SAME * jnp.finfo(here.dtype).eps).astype(dtype) * size
        rounding = jnp.maximum(rounding, self.step.rounding)
        same = jnp.abs(here.astype(dtype) - last.value) <= rounding

        def there() -> jax.Array:
            before = tree.add(self.params, tree.cast(tree.negative(last.step), self.params))
            gain = (here - self.objective(before)).astype(dtype) / last.predicted
            return jnp.where(jnp.isfinite(gain), gain, -jnp.inf)

        nothing = lambda: jnp.full_like(last.predicted, jnp.inf)
        return lambda: jax.lax.cond((last.predicted < 0) & ~same, there, nothing)

    def _value_after(self, step: Step) -> jax.Array:
        """The value after a step; infinity in place of NaN or −∞."""
        end = tree.add(self.params, tree.cast(step.direction, self.params))
        new = self.objective(end).astype(step.predicted.dtype) + self._shift_along(step.direction)
        return jnp.where(jnp.isfinite(new), new, jnp.inf)

    def _best_iterate(self, step: Step) -> Step:
        """The iterate of lowest value on the way to the step, or the step itself.

        Goes back from the step to earlier iterates as long as the value does not rise.
        """
        at, kept = step.backwards()
        if kept is None:
            return step
        # Iterates of equal value, as of a solved system, keep the step.
        noise = 10 * jnp.finfo(step.predicted.dtype).eps
        return _descend(at, kept, self._value_after, jnp.inf, noise)

    def _best_fraction(self, step: Step, halvings: int) -> Step:
        """The first of the fractions 1, ½, ¼, ... that descends further than the next one.

        Along the step's path, with ``m(αd) = α g·d + α² (m(d) − g·d)``. A step whose predicted
        decrease is below the rounding of the value stays whole: the values of fractions are equal.
        """
        dtype = step.predicted.dtype
        start = jnp.asarray(self._value_here, dtype)
        slope = tree.vdot(self.quadratic.grad, step.direction).astype(dtype)
        visible = jnp.abs(step.predicted) > jnp.finfo(dtype).eps * jnp.abs(start)

        def at(halved: jax.Array) -> Step:
            part = 0.5 ** halved.astype(dtype)
            return step.along(part)._replace(
                predicted=part * slope + part**2 * (step.predicted - slope),
                length=part * step.length,
            )

        limit = jnp.where(visible, halvings, 0)
        return _descend(at, limit, self._value_after, start, 0.0)

    def _shift_along(self, direction: Params) -> jax.Array | float:
        if self.shift is None:
            return 0.0
        return tree.vdot(self.shift, direction).astype(tree.dtype(direction))

    @functools.cached_property
    def _value_here(self) -> Any:
        return self.objective(self.params) if self.value is None else self.value

    def _within_bounds(self, step: Step) -> Step:
        """The step cut at the objective's bounds, with predicted change and length of the cut."""
        if self.objective.face is None:
            return step
        cut = self.objective.face.cut(step.direction)
        same = jax.tree.map(lambda a, b: jnp.all(a == b), cut, step.direction)
        whole = jnp.all(jnp.stack(jax.tree.leaves(same))) if jax.tree.leaves(same) else True
        dtype = step.predicted.dtype
        predicted, length = jax.lax.cond(
            whole,
            lambda: (step.predicted, step.length),
            lambda: (self.quadratic(cut).astype(dtype), self.measure(cut).astype(dtype)),
        )
        return step._replace(direction=cut, predicted=predicted, length=length)

    def _gain(self, taken: Params, step: Step) -> jax.Array:
        """Actual over predicted change of the objective along the step.

        Near a minimum the difference of two values is rounding. Below 1e4 rounding errors, or the
        rounding that the solver sees in the objective's parts, the mean of the slopes at both ends,
        ``½ (g + g⁺)·d``, which is exact for a quadratic, takes its place. The slope at the trial is
        a forward derivative, computed with the value; a function with a reverse rule alone gets
        one. A step of zero has gain 1: where the gradient is zero, or the step rounds to zero, a
        policy has nothing to correct.
        """
        fn, face = self.objective, self.objective.face
        trial = tree.add(self.params, taken)
        trial = trial if face is None else face.onto(trial)  # without rounding beyond the bounds
        predicted = step.predicted
        dtype = predicted.dtype
        seen = fn.stationary  # then derivatives have both modes
        both = lambda: jax.jvp(fn if seen else derivable(fn, trial), (trial,), (taken,))
        new_value, new_slope = (fn(trial), None) if self.lazy else both()
        noise = (1e4 * jnp.finfo(jnp.result_type(new_value)).eps).astype(dtype)
        value = jnp.asarray(self._value_here).astype(dtype)
        new_value = jnp.asarray(new_value, dtype)
        shift = jnp.asarray(self._shift_along(taken), dtype)
        change = new_value - value + shift
        near = jnp.abs(change) <= jnp.maximum(noise * jnp.abs(value), step.rounding)

        def by_slopes():
            slope = both()[1] if new_slope is None else new_slope
            first = tree.vdot(self.quadratic.grad, taken).astype(dtype)
            return 0.5 * (first + slope.astype(dtype) + shift), tree.max_abs(taken) == 0

        unknown = lambda: (jnp.zeros((), dtype), jnp.asarray(False))
        slopes, nothing = jax.lax.cond(near, by_slopes, unknown) if self.lazy else by_slopes()
        change = jnp.where(near, slopes, change)
        sound = jnp.isfinite(new_value) & jnp.isfinite(change)
        ratio = jnp.where(predicted < 0, change / jnp.where(predicted < 0, predicted, -1), -jnp.inf)
        ratio = jnp.minimum(ratio, jnp.finfo(dtype).max)  # +∞ means that no gain was computed
        return jnp.where(sound, jnp.where(nothing, 1, ratio), -jnp.inf)


def _descend(
    at: Callable[[jax.Array], Step],
    limit: jax.Array,
    value_after: Callable[[Step], jax.Array],
    start: Any,
    noise: Any,
) -> Step:
    """The best of the candidates 0, 1, 2, ..., up to the first rise of the value.

    Args:
      at: k ↦ the k-th candidate.
      limit: the last candidate.
      value_after: a candidate ↦ the value there.
      start: the value at the point; the search continues while no candidate is below it.
      noise: a relative change of the value below this counts as none.
    """
    none = jnp.zeros((), jnp.int32)
    first = value_after(at(none))
    noise = noise * jnp.where(jnp.isfinite(first), jnp.abs(first), 0)

    def going(carry):
        _, _, k, falling = carry
        return falling & (k < limit)

    def go(carry):
        best, least, k, _ = carry
        here = value_after(at(k + 1))
        falling = (here < least + noise) | (least >= start)
        lower = here < least - noise
        return jnp.where(lower, k + 1, best), jnp.where(lower, here, least), k + 1, falling

    best, _, last, _ = jax.lax.while_loop(going, go, (none, first, none, jnp.asarray(True)))
    return at(best).evaluating(last + 1)
