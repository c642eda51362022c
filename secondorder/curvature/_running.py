"""Exponential moving average of sampled curvature, with scheduled refreshes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import meshes, settings, tree
from secondorder.curvature._base import Curvature
from secondorder.curvature._samples import Estimator
from secondorder.curvature._structures import Moments, Now, Structure

Steps = int | jax.Array  # number of updates between two events


class Drift(NamedTuple):
    """Schedule of refreshes: at a drift above ``tolerance``, measured at a fixed interval."""

    tolerance: tree.Real
    measure_every: Steps = 1


@settings.checked(tolerance=settings.POSITIVE)
def drift(tolerance: tree.Real = 0.1, *, measure_every: Steps = 1) -> Drift:
    """Schedule of refreshes by drift, the relative distance of the averages from their frame.

    Pass it as ``refresh_every=`` to ``running``, ``layerwise``, ``kfac``, ``ekfac``, ``shampoo``,
    ``soap``, ``kl_shampoo`` and ``kl_soap``. The drift is the largest value, over all factors F of
    all blocks, of

        ‖QᵀFQ − diag(QᵀFQ)‖ / ‖F‖       for an eigenbasis Q
        ‖P (F + shift I) − I‖ / √d      for an inverse P with its damping (``kfac``)
        ‖F P F − F‖ / ‖F‖               for an inverse root with the power P (``shampoo``)

    All blocks are refreshed together: at the first update, and where the drift exceeds the
    tolerance. A measurement costs a few products of matrices for each factor, less than a refresh.
    The measure of an inverse is its largest error, and λ often changes by factors, so tolerances of
    inverses are above 1.

    Args:
      tolerance: maximum relative drift before a refresh.
      measure_every: updates from one measurement of the drift to the next.

    Raises:
      ValueError: a tolerance that is not positive.

    Example:
      >>> import secondorder as so
      >>> adaptive = so.soap(refresh_every=so.curvature.drift(0.1, measure_every=10))

    Source: Eschenhagen et al. (2025), section 4, for eigenbases.
    """
    return Drift(tolerance, measure_every)


class Running(NamedTuple):
    """The state of :func:`running`.

    Attributes:
      averages, frame: averages and frame of the :class:`Structure`.
      count: number of updates.
      samples: number of samples.
      key: key data of the random draws, folded with the count at each update; ``None`` without
        draws.
      refreshes: number of refreshes of the frame; ``None`` for a structure without one.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.diagonal(), decay=0.9)
      >>> isinstance(curvature.init(jnp.zeros(2)), so.curvature.Running)
      True
    """

    averages: Any
    frame: Any
    count: jax.Array
    samples: jax.Array
    key: jax.Array | None
    refreshes: jax.Array | None = None


@settings.checked()
def running(
    estimator: Estimator,
    structure: Structure,
    *,
    decay: tree.Real,
    sample_every: Steps = 1,
    refresh_every: Steps | Drift = 1,
    debias: bool = True,
    seed: int = 0,
) -> Curvature:
    """Exponential moving average ``E[v wᵀ]`` of sampled curvature, in a structure.

    Args:
      estimator: source of the samples, such as ``curvature.fisher_sample()``.
      structure: summary of the samples, such as ``curvature.diagonal()``.
      decay: decay of the average, per sample; 1 for a sum.
      sample_every: updates from one sample to the next, starting at the first update.
      refresh_every: updates from one refresh of the structure's frame, such as an eigenbasis, to
        the next; or ``curvature.drift(0.1)`` to refresh by drift.
      debias: whether to correct the bias of an average that starts at zero.
      seed: seed of the random draws.

    Raises:
      ValueError: ``drift`` for a structure without a measure of its drift.

    Example:
      >>> import secondorder as so
      >>> diagonal = so.running(so.curvature.hutchinson(), so.curvature.diagonal(), decay=0.99)
      >>> tx = so.scale_by_curvature(diagonal, so.solvers.apply_inverse(), so.trust.fixed(1e-3))
    """
    _check_drift(structure, refresh_every)

    def init(params: tree.Params) -> Running:
        none = lambda: jnp.zeros((), jnp.int32)
        key = jax.random.key_data(jax.random.key(seed)) if estimator.draws else None
        refreshes = None if structure.refresh is None else none()
        return Running(*structure.init(params), none(), none(), key, refreshes)

    def update(grads, state: Running, params, value_fn, scale=0.0):
        def learn(frame):
            key: Any = None if state.key is None else tree.folded(state.key, state.count)
            sample = estimator.draw(grads, params, value_fn, key)
            old, n = state.averages, state.samples
            new = structure.measure(sample, old, frame)
            mean = lambda n: tree.running_mean(old, new, decay, n, debias)
            if structure.join is None:
                return mean(n)
            return structure.join(mean(n), tree.where(n > 0, mean(n - 1), old))

        def renewed():
            assert structure.refresh is not None
            first = state.count == 0
            averages, frame = structure.refresh(grads, *before, Now(first, scale))
            if structure.recount == "always":
                averages = learn(frame)
            elif structure.recount == "first":  # the sample again, now that there is a frame
                averages = jax.lax.cond(first, lambda: learn(frame), lambda: averages)
            return averages, frame

        both = lambda: (learn(state.frame), state.samples + 1)
        averages, samples = _at(
            state.count, sample_every, both, lambda: (state.averages, state.samples)
        )
        before = after = averages, state.frame
        refreshes = state.refreshes
        if refreshes is not None:  # else there is no frame
            if isinstance(refresh_every, Drift):
                due = _has_drifted(structure, refresh_every, state.count, grads, *before, scale)
                after = jax.lax.cond(due, renewed, lambda: before)
            else:
                due = state.count % refresh_every == 0
                after = _at(state.count, refresh_every, renewed, lambda: before)
            refreshes = refreshes + due.astype(jnp.int32)
            after = _held(after, params)  # without a frame they lie like the parameters
        operator = structure.operator(grads, *(before if structure.behind else after))
        count = state.count + 1
        return operator, Running(after[0], after[1], count, samples, state.key, refreshes)

    return Curvature(init, update, estimator.needs_value_fn, reads_scale=True)


def _has_drifted(structure: Structure, drift: Drift, count: jax.Array, *state: Any) -> jax.Array:
    """Whether a refresh is due by drift: the first one, or one beyond the tolerance."""
    assert structure.drift is not None
    measure = functools.partial(structure.drift, *state)
    far = lambda: measure() > drift.tolerance
    return (count == 0) | _at(count, drift.measure_every, far, lambda: jnp.asarray(False))


def _check_drift(structure: Structure, refresh_every: Steps | Drift) -> None:
    by_drift = isinstance(refresh_every, Drift)
    if by_drift and structure.refresh is not None and structure.drift is None:
        raise ValueError(
            "running got refresh_every=drift(...), but the structure has no drift of its frame. "
            "Pass a number of updates, or a structure with drift=."
        )


def _held(memory: Any, params: tree.Params) -> Any:
    """The memory on every device, but for the squares of leaves without factors."""
    is_moments = lambda x: isinstance(x, Moments)
    apart = lambda x: is_moments(x) and not jax.tree.leaves(x.factors)
    one = lambda x: x if apart(x) else meshes.held_whole(x, params)
    return jax.tree.map(one, memory, is_leaf=is_moments)


def _at(count: jax.Array, every: Steps, then: Callable, otherwise: Callable) -> Any:
    """``then()`` at every ``every``-th count, starting at the first; else ``otherwise()``."""
    if isinstance(every, int) and every == 1:
        return then()
    return jax.lax.cond(count % every == 0, then, otherwise)
