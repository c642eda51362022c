"""Profiles of a fit: χ² as a function of one or two parameters, at its minimum in the others.

The ends of a profile interval are where ``χ²(p) = χ²_min + t² s²``, with Student's t and
``s² = χ²_min/ν`` (1 for absolute errors): the interval of the F test, without a linearised model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from secondorder import losses, tree
from secondorder.layers._jaxpr import as_one_program
from secondorder.linalg import _lapack as lapack
from secondorder.operators._dense import ravel, unravel
from secondorder.optimize._bounds import box_of
from secondorder.optimize._programs import kept
from secondorder.optimize._quantiles import pair_probability, student_probability
from secondorder.optimize._records import Status
from secondorder.optimize._regression import Regression, Task
from secondorder.tree import Params

EVALUATIONS = 50  # constrained fits for one end of an interval
FARTHEST = 1e6  # of an end, in standard errors


class Profile(NamedTuple):
    """χ² along one parameter, or over a grid of two, at its minimum in all the others.

    Attributes:
      values: an array for each parameter: the axes of the grid.
      chi_square: over the grid, ``(k,)`` or ``(k, k)``, the first parameter first.
      probability: the confidence level of the region that ends at each point, by the F test: a
        contour of 0.95 is that of 95 %.
      params: the parameters at each point, with the axes of the grid before.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = jnp.linspace(0.0, 1.0, 9)
      >>> line = lambda p, x: p["a"] * x + p["b"]
      >>> y = 2 * x + 0.1 * jnp.cos(9 * x)
      >>> fit = so.curve_fit(line, x, y, {"a": 1.0, "b": 0.0})
      >>> fit.profile("a", points=5).chi_square.argmin().item()  # the middle one
      2
    """

    values: tuple[jax.Array, ...]
    chi_square: jax.Array
    probability: jax.Array
    params: Params


class Best(NamedTuple):
    """What a profile starts from.

    Attributes:
      params: all parameters at the minimum.
      chi_square, scale, freedom: χ² there, ``s²``, and the degrees of freedom.
      covariance: of the free parameters, in the order of ``ravel``.
    """

    params: Params
    chi_square: jax.Array
    scale: jax.Array
    freedom: jax.Array
    covariance: jax.Array


class Slice(NamedTuple):
    """The smallest χ² for some fixed parameters.

    Attributes:
      point: the free parameters as a vector.
      sound: whether its search ended at a minimum, or χ² is infinite here.
    """

    chi_square: jax.Array
    point: jax.Array
    sound: jax.Array


class Slices(NamedTuple):
    """Fits with some of the free parameters held, as vectors."""

    problem: Regression
    best: Best

    @property
    def free(self) -> Params:
        return self.problem.task.layout.free(self.best.params)

    @property
    def center(self) -> jax.Array:
        return ravel(self.free)

    def tree(self, point: jax.Array) -> Params:
        return tree.cast(unravel(point, self.free), self.free)

    def ends(self) -> tuple[jax.Array, jax.Array] | None:
        """The bounds as two vectors."""
        bounds = self.problem.free_bounds()
        if bounds is None:
            return None
        lower, upper = box_of(bounds, self.free)
        return ravel(lower), ravel(upper)

    def residual(self) -> Callable[[jax.Array], jax.Array]:
        inner = self.problem.observed().residual
        return lambda point: inner(self.problem.whole(self.tree(point)))

    def chi(self, point: jax.Array) -> jax.Array:
        """χ² at a point, or twice the loss; infinite where it is not finite."""
        loss = self.problem.task.options.loss or losses.half_sum_of_squares()
        chi = 2 * loss(self.residual()(point))
        return jnp.where(jnp.isfinite(chi), chi, jnp.inf)

    def at(self, held: jax.Array, values: jax.Array, count: int, *starts: jax.Array) -> Slice:
        """The slice with ``count`` parameters held; the search begins at the best of the starts.

        Args:
          held: mask of the held parameters; it may be traced, so one program serves them all.
          values: a vector, read where ``held``.
        """
        size = self.center.size
        starts = tuple(jnp.where(held, values, start) for start in starts)
        chis = jnp.stack([self.chi(start) for start in starts])
        start = jnp.stack(starts)[jnp.argmin(chis)]
        if count == size:
            return Slice(self.chi(start), start, jnp.asarray(True))
        others = jnp.argsort(held, stable=True)[: size - count]
        place = jnp.maximum(jnp.cumsum(~held) - 1, 0)
        join = lambda rest: jnp.where(held, values, rest[place])
        bounds = self.ends()
        if bounds is not None:
            bounds = bounds[0][others], bounds[1][others]
        residual = self.residual()
        found = self.problem.search(lambda rest: residual(join(rest)), start[others], bounds)
        point = join(found.params)
        chi = jnp.where(jnp.isfinite(found.value), 2 * found.value, jnp.inf)
        failed = (found.status == Status.MAX_STEPS.value) | (found.status == Status.NONFINITE.value)
        return Slice(chi, point, ~failed | jnp.isinf(chi))

    def predicted(self, held: jax.Array, index: jax.Array, value: jax.Array) -> jax.Array:
        """The others' minimum in the linearised model, where one parameter has this value."""
        column, center = self.best.covariance[index], self.center
        slope = column / jnp.where(column[index] > 0, column[index], 1)
        slope = jnp.where(jnp.isfinite(slope), slope, 0)
        return jnp.where(held, value, center + slope * (value - center[index]))


class _Search(NamedTuple):
    """The search for an end: τ is below ``t`` at ``low`` and above it at ``high``.

    Attributes:
      trial: the next distance from the minimum.
      low, high: distances; ``high`` is infinite until it is found.
      below, above: τ − t there, halved by the Illinois rule.
      point: of the last slice.
      sound: of the slice at ``high``.
      lower: whether some slice is below the minimum of the fit.
    """

    trial: jax.Array
    low: jax.Array
    high: jax.Array
    below: jax.Array
    above: jax.Array
    point: jax.Array
    sound: jax.Array
    lower: jax.Array
    done: jax.Array
    count: jax.Array


def _end(slices: Slices, index: jax.Array, sign: jax.Array, t: jax.Array) -> jax.Array:
    """The end of an interval: infinite if there is none, NaN if the search for it fails."""
    best, center = slices.best, slices.center
    dtype, start = center.dtype, center[index]
    eps = float(jnp.finfo(dtype).eps)
    held = jnp.arange(center.size) == index
    error = jnp.sqrt(best.covariance[index, index])
    known = jnp.isfinite(error) & (error > 0)
    unit = jnp.where(known, error, 1)
    room, bounds = jnp.asarray(jnp.inf, dtype), slices.ends()
    if bounds is not None:
        room = jnp.where(sign > 0, bounds[1][index] - start, start - bounds[0][index])
    close = eps**0.4

    def step(now: _Search) -> _Search:
        u = now.trial
        value = start + sign * u
        values = jnp.where(held, value, 0)
        guess = slices.predicted(held, index, value)
        found = slices.at(held, values, 1, guess, now.point)
        rise = (found.chi_square - best.chi_square) / best.scale
        lower = rise < -1e3 * eps * best.chi_square / best.scale - 1e-3
        gap = jnp.sqrt(jnp.maximum(rise, 0)) - t
        outside = gap > 0
        low, high = jnp.where(outside, now.low, u), jnp.where(outside, u, now.high)
        again = jnp.where(outside, now.high < jnp.inf, now.low > 0)  # Illinois
        below = jnp.where(outside, jnp.where(again, now.below / 2, now.below), gap)
        above = jnp.where(outside, gap, jnp.where(again, now.above / 2, now.above))
        cross = low + (high - low) * (-below) / jnp.where(above > below, above - below, 1)
        margin = 0.02 * (high - low)
        inside = (cross > low + margin) & (cross < high - margin)
        often = now.count % 4 == 3  # so that the bracket halves whatever the curve
        middle = jnp.where(inside & ~often, cross, 0.5 * (low + high))
        grown = jnp.clip(u * t / jnp.maximum(gap + t, t / 10), 1.2 * u, 10 * u)
        trial = jnp.where(jnp.isinf(high), jnp.minimum(grown, room), middle)
        hit = jnp.abs(gap) <= close * t
        narrow = jnp.isfinite(high) & (high - low <= close * high)
        over = ~outside & ((u >= room) | (u > FARTHEST * t * unit))
        end = jnp.where(
            over, jnp.where(u >= room, u, jnp.inf), jnp.where(hit, u, 0.5 * (low + high))
        )
        done = hit | narrow | over | lower
        return _Search(
            trial=jnp.where(done, end, trial),
            low=low,
            high=high,
            below=below,
            above=above,
            point=found.point,
            sound=jnp.where(outside | hit, found.sound, now.sound),
            lower=now.lower | lower,
            done=done,
            count=now.count + 1,
        )

    zero = jnp.zeros((), dtype)
    begin = _Search(
        trial=jnp.minimum(t * unit, room).astype(dtype),
        low=zero,
        high=zero + jnp.inf,
        below=-t.astype(dtype),
        above=zero + jnp.inf,
        point=center,
        sound=jnp.asarray(True),
        lower=jnp.asarray(False),
        done=~known | (room <= 0),
        count=jnp.zeros((), jnp.int32),
    )
    last = jax.lax.while_loop(lambda s: ~s.done & (s.count < EVALUATIONS), step, begin)
    distance = jnp.where(room <= 0, 0, jnp.where(known, last.trial, jnp.inf))
    failed = known & (room > 0) & (last.lower | ~last.sound | ~last.done)
    return jnp.where(failed, jnp.nan, start + sign * distance)


def intervals(problem: Regression, best: Best, t: jax.Array) -> tuple[Params, Params]:
    """The profile intervals of all parameters: ends as two trees like the parameters."""
    arrays = problem[1:], best, jnp.asarray(t)
    return kept(_intervals, (problem.task.model, problem.task), arrays, "confidence_intervals")


def _intervals(
    model: Callable, task: Task, given: tuple, best: Best, t: jax.Array
) -> tuple[Params, Params]:
    def both() -> tuple[Params, Params]:
        slices = Slices(Regression(task, *given), best)
        size = slices.center.size
        index = jnp.concatenate([jnp.arange(size)] * 2)
        sign = jnp.concatenate([-jnp.ones(size), jnp.ones(size)]).astype(slices.center.dtype)
        ends = jax.vmap(lambda i, s: _end(slices, i, s, t))(index, sign)
        return _placed(task, best.params, ends[:size]), _placed(task, best.params, ends[size:])

    return as_one_program(both)


def _placed(task: Task, params: Params, ends: jax.Array) -> Params:
    """Ends of the free parameters among all: a fixed one is its own end, a tied one has NaN."""
    layout = task.layout
    free = layout.free(params)
    ends = tree.cast(unravel(ends, free), free)
    open_ = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), params)
    shared = [layout._replace(ties=()).whole(ends, base) for base in (params, open_)]
    tied = [np.zeros(np.shape(x), bool) for x in jax.tree.leaves(params)]
    for tie in layout.ties:
        tied[tie.place.leaf][tie.place.entry or ...] = True
    mask = jax.tree.unflatten(jax.tree.structure(params), tied)
    return jax.tree.map(jnp.where, mask, shared[1], shared[0])


def grid(problem: Regression, best: Best, indices: tuple[int, ...], axes: tuple) -> Profile:
    """The profile over a grid of one or two free parameters, by their numbers among the free."""
    arrays = problem[1:], best, axes
    return kept(_grid, (problem.task.model, problem.task, indices), arrays, "profile")


def _grid(
    model: Callable, task: Task, indices: tuple[int, ...], given: tuple, best: Best, axes: tuple
) -> Profile:
    def all_points() -> Profile:
        slices = Slices(Regression(task, *given), best)
        held = np.isin(np.arange(slices.center.size), indices)
        c = best.covariance[np.ix_(indices, indices)]
        rows = best.covariance[np.asarray(indices)]
        slope = jnp.where(jnp.isfinite(rows), lapack.solve(c, rows), 0)

        def one(*values: jax.Array) -> Slice:
            point = jnp.stack(values).astype(slices.center.dtype)
            full = jnp.zeros_like(slices.center).at[np.asarray(indices)].set(point)
            shift = point - slices.center[np.asarray(indices)]
            guess = slices.center + jnp.matmul(shift, slope, precision="highest")
            return slices.at(jnp.asarray(held), full, len(indices), guess, slices.center)

        mesh = jnp.meshgrid(*axes, indexing="ij")
        flat = [m.reshape(-1) for m in mesh]
        found = jax.vmap(one)(*flat)
        shape = mesh[0].shape
        rise = jnp.maximum(found.chi_square - best.chi_square, 0) / best.scale
        if len(indices) == 1:
            probability = student_probability(jnp.sqrt(rise), best.freedom)
        else:
            probability = pair_probability(rise / 2, best.freedom)
        params = jax.vmap(lambda point: slices.problem.whole(slices.tree(point)))(found.point)
        chi = jnp.where(found.sound, found.chi_square, jnp.nan)
        return Profile(
            values=tuple(axes),
            chi_square=chi.reshape(shape),
            probability=jnp.where(found.sound, probability, jnp.nan).reshape(shape),
            params=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), params),
        )

    return as_one_program(all_points)
