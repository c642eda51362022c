"""Policies of a region: the radius of a trust region, and the weight of a cubic term."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.step import Step
from secondorder.trust._attempt import EDGE, Attempt
from secondorder.trust._base import Trial, Trust, TrustState
from secondorder.trust._closed_loop import (
    GOOD,
    closed_loop,
    first_state,
    judged,
    next_state,
    slowest,
    starting,
)


@settings.checked(initial=settings.unscheduled(settings.LENGTH))
def radius(
    initial: tree.Real = jnp.inf, *, maximum: float = jnp.inf, interpolate: bool = False
) -> Trust:
    """A trust region: Δ to a quarter of the step on a poor gain, doubled on a good one at the edge.

    ρ < ¼: ``Δ = ‖d‖/4``; ρ > ¾ and the step at the boundary: ``min(2Δ, maximum)``; a step is taken
    where ρ > 1e-4 (Nocedal and Wright 2006, algorithm 4.1).

    Args:
      initial: the first Δ > 0. The default, infinity, takes ten times the scaled length of the
        parameters, since a whole first step may end on a flat tail; a parameter at zero counts by
        its own step. Where all are zero, or the solver has no scaling, the first step gives the
        problem's own length.
      maximum: upper limit of Δ.
      interpolate: whether a rejection shrinks Δ by the parabola through ``f(0)``, ``f'(0)`` and
        ``f(d)``, to between a tenth and a quarter of the step.

    Raises:
      ValueError: ``initial`` or ``maximum`` not positive.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.hessian), so.solvers.steihaug(), so.trust.radius())
    """

    def rule(trial: Trial, state: TrustState) -> TrustState:
        gain, accepted = judged(trial)
        old, limits = state.scale, jnp.finfo(state.scale.dtype)
        length = trial.length.astype(old.dtype)
        known = jnp.isfinite(length) & (length > 0)
        # Finite, since a quarter of infinity is no shorter; and off zero, so that Δ can come back.
        shrunk = jnp.minimum(jnp.where(known, length, old), jnp.minimum(old, limits.max))
        part = 0.25 if not interpolate else _shrinkage(trial, gain, accepted).astype(old.dtype)
        shrunk = jnp.maximum(part * shrunk, limits.tiny / limits.eps)
        # Of an infinite region it is the solver's own that a step on the boundary has shown.
        shown = jnp.where(trial.boundary & known & ~jnp.isfinite(old), length, old)
        grown = jnp.minimum(2 * shown, maximum)
        # No limit (1/0) if the objective is the same.
        grown = jnp.minimum(grown, shown / slowest(trial.elsewhere()))
        new = jnp.where(trial.boundary & (gain > 0.75), grown, shown)
        poor = ~accepted | (gain < 0.25)
        return next_state(state, jnp.where(poor, shrunk, new), state.factor, gain, accepted)

    return closed_loop(lambda params: first_state(initial, params), rule, "radius")


# Of Hessian regions, which reject a third less often by it; on rows it costs Jacobians.
interpolated = functools.partial(radius, interpolate=True)


@settings.checked(initial=settings.unscheduled(settings.LENGTH))
def probed(
    initial: tree.Real = jnp.inf, *, count: int = 6, ratio: float = 4.0, target: float = 0.1
) -> Trust:
    """A trust region that tries several radii at once, from one factorisation.

    The steps for ``qΔ, Δ, Δ/q, Δ/q², ...`` and their values are one batch; the largest radius whose
    gain ρ is at least ``target`` is taken, and is the next Δ. A step within its region leaves Δ; if
    no radius reaches the target, the smallest is tried by ρ > 1e-4.

    On small problems a third fewer steps than :func:`radius`, a sixth fewer Jacobians and five
    times the values: for models whose Jacobian costs hundreds of values.

    Args:
      initial: the first Δ > 0; infinity as in :func:`radius`.
      count: number of radii.
      ratio: q > 1.
      target: the least gain, between 0 and 1.

    Raises:
      ValueError: ``initial`` not positive, ``count`` below 2, ``ratio`` not above 1, or ``target``
        not between 0 and 1.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> r = lambda p: jnp.array([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> method = so.levenberg_marquardt(trust=so.trust.probed())
      >>> bool(so.least_squares(r, jnp.array([-1.2, 1.0]), method).success)
      True

    Source: Webb, Jerad and Cartis (2026).
    """

    def update(attempt: Attempt, state: TrustState) -> tuple[Step, TrustState]:
        old = attempt.radius
        radii = old * jnp.asarray(ratio, old.dtype) ** (1 - jnp.arange(count))
        step, chosen = attempt.probe(radii, target)
        trial = attempt.trial(step, state.last)
        gain, accepted = judged(trial)
        length = trial.length.astype(old.dtype)
        # An infinite region shows its own length by the step that was rejected.
        known = jnp.isfinite(length) & (length > 0)
        reach = jnp.where(jnp.isfinite(chosen) | ~known, chosen, length)
        limits = jnp.finfo(old.dtype)
        shrunk = jnp.clip(jnp.minimum(reach, old) / ratio, limits.tiny / limits.eps, limits.max)
        kept = jnp.where(length < EDGE * chosen, jnp.maximum(old, chosen), chosen)
        kept = jnp.minimum(kept, old / slowest(trial.elsewhere()))
        new = next_state(state, jnp.where(accepted, kept, shrunk), state.factor, gain, accepted)
        return step, new._replace(last=attempt.remembered(step, gain, accepted, state.last))

    return Trust(starting(lambda params: first_state(initial, params)), update, "radius")


def _shrinkage(trial: Trial, gain: jax.Array, accepted: jax.Array) -> jax.Array:
    """The part of a step that stays: after a rejection the least point of a parabola.

    Through ``f(0)``, ``f'(0)`` and ``f(d)``, at least a tenth, at most a quarter.
    """
    slope = trial.slope()
    rise = gain * trial.predicted - slope
    known = (slope < 0) & (rise > 0)
    part = jnp.where(known, -0.5 * slope / jnp.where(known, rise, 1), 0.25)
    return jnp.where(accepted, 0.25, jnp.clip(part, 0.1, 0.25))


@settings.checked(initial=settings.unscheduled(settings.NOT_NEGATIVE))
def cubic(initial: tree.Real = 0.0) -> Trust:
    """The weight σ of a cubic term by gain ratio: adaptive cubic regularisation.

    ρ > 0.9: σ/4; ρ < ¼: 2σ; a step with ρ ≤ 1e-4 or a trial that is not finite is rejected and σ
    rises fourfold, to at least ``|m(d)| / ‖d‖³``, where the cubic term begins to matter (Cartis,
    Gould and Toint 2011, section 2).

    Args:
      initial: the first σ ≥ 0. The default, 0, gives Newton's step; the first rejection then gives
        the problem's own unit.

    Raises:
      ValueError: ``initial`` negative.

    Example:
      >>> import secondorder as so
      >>> hessian = so.exact(so.hessian)
      >>> tx = so.scale_by_curvature(hessian, so.solvers.exact_cubic(), so.trust.cubic())
    """

    def rule(trial: Trial, state: TrustState) -> TrustState:
        gain, accepted = judged(trial)
        sigma, limits = state.scale, jnp.finfo(state.scale.dtype)
        length = trial.length.astype(sigma.dtype)
        natural = jnp.abs(trial.predicted).astype(sigma.dtype) / length**3
        natural = jnp.where(jnp.isfinite(natural), natural, 1)
        raised = jnp.maximum(4 * sigma, natural)
        good = (gain > 0.9) & (trial.elsewhere() > GOOD)
        eased = jnp.where(good, sigma / 4, jnp.where(gain < 0.25, 2 * sigma, sigma))
        scale = jnp.where(accepted, eased, raised)
        return next_state(
            state, jnp.minimum(scale, jnp.sqrt(limits.max)), state.factor, gain, accepted
        )

    return closed_loop(lambda params: first_state(initial, params), rule, "cubic")
