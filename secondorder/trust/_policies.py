"""Trust policies: open loop, damping, line search, trust region, cubic weight."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from secondorder import settings, tree
from secondorder.step import Step
from secondorder.trust._attempt import Attempt
from secondorder.trust._base import Last, Trial, Trust, TrustState

# A step is taken when the decrease is at least this part of the predicted one: nearly any decrease,
# since rejecting more would cost more steps (Nocedal and Wright 2006, 4.1).
ACCEPT = 1e-4

# If the objective changes between updates, as with minibatches, λ falls (Δ grows) only if the last
# step has at least the gain GOOD on the new objective too, and at most by the factor SLOWLY. With a
# gain below −1 there, the change is reversed by the same factor.
GOOD, SLOWLY = 0.75, 0.9

# Policies that fit a method, by the kind of scalar that its solver reads.
POLICIES = {
    "damping": ("trust.damping()", "trust.line_search()"),
    "radius": ("trust.radius()",),
    "cubic": ("trust.cubic()",),
}


def policy_of(
    given: Trust | optax.ScalarOrSchedule | None, own: Callable[[Any], Trust], user: str, *fit: str
) -> Trust:
    """The policy of a method's ``trust``: the given one, or the method's own from a number.

    Args:
      given: a :class:`Trust`, or the start of the method's own policy.
      own: the method's own policy, such as :func:`radius`.
      user: the method, for messages.
      fit: the kinds of scalar that the method has a solver for; ``trust.fixed`` always fits.

    Raises:
      TypeError: a name, or a policy that was not called.
      ValueError: a policy of another kind.
    """
    if isinstance(given, str) or getattr(given, "__module__", None) == __name__:
        name = getattr(given, "__name__", given)
        known = (
            f"secondorder.trust.{name}()" if name in globals() else "secondorder.trust.fixed(0.1)"
        )
        raise TypeError(
            f"{user} got trust={name}; pass a policy, such as {known}, or a number, which starts "
            "the method's own policy."
        )
    if not isinstance(given, Trust):
        try:
            return own(given)
        except (TypeError, ValueError) as error:
            message = f"{user} got trust={given!r}, where its own policy starts. {error}"
            raise type(error)(message) from None
    if given.gives not in ("any", *fit):
        known = ", ".join(["a number", *(name for kind in fit for name in POLICIES[kind])])
        raise ValueError(
            f"{user} takes {known} or trust.fixed() as trust, but got a policy whose {given.gives} "
            "follows the outcome of steps. Pass one of these."
        )
    return given


def _state(scale: Any, params: tree.Params, factor: float = 2.0) -> TrustState:
    dtype = tree.dtype(params)
    real = lambda x: jax.lax.convert_element_type(x, dtype)
    return TrustState(
        real(scale), real(factor), jnp.zeros((), jnp.int32), real(jnp.inf), jnp.asarray(True)
    )


def _next(state: TrustState, scale, factor, gain, accepted) -> TrustState:
    dtype = state.scale.dtype
    return TrustState(
        jnp.asarray(scale, dtype),
        jnp.asarray(factor, dtype),
        state.count + 1,
        jnp.asarray(gain, dtype),
        jnp.asarray(accepted, bool),
    )


def _closed_loop(
    init: Callable[[tree.Params], TrustState],
    rule: Callable[[Trial, TrustState], TrustState],
    gives: str,
    lazy: bool = False,
    halvings: int = 0,
) -> Trust:
    """A policy that tries its step, with at most ``halvings`` halvings; ``rule`` gets the trial."""

    def start(params: tree.Params) -> TrustState:
        state = init(params)
        unknown = jnp.full_like(state.scale, jnp.inf)
        return state._replace(last=Last(tree.zeros_like(params), jnp.zeros_like(unknown), unknown))

    def update(attempt: Attempt, state: TrustState) -> tuple[Step, TrustState]:
        step = attempt.choose(halvings)
        new = rule(attempt.trial(step, state.last), state)
        last = attempt.remembered(step, new.gain, new.accepted, state.last)
        return step, new._replace(last=last)

    return Trust(start, update, gives, searches=bool(halvings), lazy=lazy)


@settings.checked()
def fixed(scale: optax.ScalarOrSchedule = 0.0) -> Trust:
    """An open-loop policy: a given scalar at every step, no evaluation, every finite step taken.

    Args:
      scale: λ for a solver that reads damping (Δ for one that reads a radius), or a schedule
        ``count ↦ λ`` as in Optax.

    Example:
      >>> import optax, secondorder as so
      >>> decaying = so.trust.fixed(optax.exponential_decay(1.0, 10, 0.5))
    """
    at = scale if callable(scale) else lambda count: scale

    def update(attempt: Attempt, state: TrustState) -> tuple[Step, TrustState]:
        step = attempt.whole()
        finite = attempt.trial(step).finite
        return step, _next(state, at(state.count + 1), state.factor, jnp.inf, finite)

    def now(state: TrustState) -> jax.Array:
        return jnp.asarray(at(state.count), state.scale.dtype)

    start = lambda params: _state(at(jnp.zeros((), jnp.int32)), params)
    return Trust(start, update, "any", now, evaluates=False)


def _slowest(other: Any) -> jax.Array:
    """The least factor of λ after a step with the gain ``other`` on another objective."""
    moved = jnp.where(other > GOOD, SLOWLY, jnp.where(other < -1, 1 / SLOWLY, 1))
    return jnp.where(jnp.isposinf(other), 0, moved)


def nielsen(damping, factor, gain, accepted):
    """Nielsen's rule: λ falls smoothly, at most to a third, and rises faster at each rejection.

    Accepted: ``λ max(1/3, 1 − (2ρ − 1)³)``, ν = 2. Rejected: ``ν λ``, ``ν → 2ν`` (Nielsen 1999).

    Example:
      >>> import secondorder as so
      >>> policy = so.trust.damping(1.0, adapt=so.trust.nielsen)
    """
    eased = damping * jnp.clip(1 - (2 * gain - 1) ** 3, 1 / 3, 2)
    return jnp.where(accepted, eased, damping * factor), jnp.where(accepted, 2, 2 * factor)


def martens(damping, factor, gain, accepted):
    """Martens' rule: λ × 2/3 for ρ > ¾, × 3/2 for ρ < ¼, × 4 on rejection (2010, section 4.1).

    Example:
      >>> import secondorder as so
      >>> policy = so.trust.damping(1.0, adapt=so.trust.martens)
    """
    del factor
    moved = jnp.where(gain > 0.75, damping * 2 / 3, jnp.where(gain < 0.25, damping * 1.5, damping))
    return jnp.where(accepted, moved, 4 * damping), jnp.full_like(damping, 4)


Adapt = Callable[..., tuple[jax.Array, jax.Array]]


@settings.checked()
def damping(
    initial: tree.Real = 1e-3,
    *,
    adapt: Adapt = nielsen,
    lazy: bool = False,
    trial_every: int | jax.Array = 1,
    halvings: int = 0,
) -> Trust:
    """Levenberg-Marquardt's control of λ by the gain ratio ρ (actual over predicted decrease).

    A step with ρ ≤ 1e-4, or whose trial value is NaN or infinite, is rejected: parameters and
    memory stay, λ rises, and the next update tries again.

    A step has a good gain on the batch it was computed from, even for a too small λ. If the
    objective differs from that of the last update, λ therefore falls by at most a tenth, and only
    if the last step has a gain above ¾ on the new objective too. A gain below −1 there raises λ by
    the same factor, and a rejection raises it by half. This costs one more value, and a copy of the
    step. The other policies limit their Δ, σ and λ in the same way.

    Args:
      initial: the first λ > 0, in the solver's units (relative for ``qr``, absolute for ``cg`` and
        ``direct``).
      adapt: ``(λ, factor, ρ, accepted) -> (λ, factor)``: :func:`nielsen` or :func:`martens`.
      lazy: whether a trial costs a value alone, and a tangent only where the change of values is
        rounding: for large models, where a tangent is expensive.
      trial_every: steps from one trial to the next. Between them λ stays, and every finite step is
        taken; after a rejection each step is tried until one is taken.
      halvings: largest number of halvings of a step, as long as each descends further. A step taken
        in part has a good gain, but was too long: each halving raises λ by half.

    Raises:
      TypeError: a schedule as ``initial``.
      ValueError: ``initial`` not positive, since no factor could raise it.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.direct(), so.trust.damping(1e-2))
    """

    def rule(trial: Trial, state: TrustState) -> TrustState:
        if isinstance(trial_every, int) and trial_every == 1:
            return tried(trial, state)
        untried = lambda: _next(state, state.scale, state.factor, jnp.inf, trial.finite)
        due = (state.count % trial_every == 0) | ~state.accepted
        return jax.lax.cond(due, lambda: tried(trial, state), untried)

    def tried(trial: Trial, state: TrustState) -> TrustState:
        gain = trial.gain()
        accepted = trial.finite & (gain > ACCEPT)
        limits = jnp.finfo(state.scale.dtype)
        scale, factor = adapt(state.scale, state.factor, jnp.maximum(gain, -1), accepted)
        if halvings:
            halved = -jnp.log2(trial.fraction)
            scale = jnp.where(accepted & (halved > 0), 1.5**halved * state.scale, scale)
        # The gain on the batch of the step is always good, so the gain on another batch decides.
        other = trial.elsewhere()
        changed = ~jnp.isposinf(other)
        least = _slowest(other)
        most = jnp.where(changed & (gain > -jnp.inf), 1.5, jnp.inf)
        scale = jnp.clip(scale, least * state.scale, most * state.scale)
        # Kept finite and off zero, so that λ can always come back; factor likewise.
        scale = jnp.clip(scale, limits.eps**2, jnp.sqrt(limits.max))
        return _next(state, scale, jnp.minimum(factor, 1e6), gain, accepted)

    start = lambda params: _state(initial, params)
    return _closed_loop(start, rule, "damping", lazy, halvings)


@settings.checked(halvings=settings.SIZE)
def line_search(initial: tree.Real | None = None, *, halvings: int = 30) -> Trust:
    """A search along the step, over the fractions 1, ½, ¼, ...; λ follows the fraction taken.

    After k halvings: ``3^(k−1) λ``, at most ``9λ``, which also follows a rejection (no fraction
    descends). So λ stays smaller than the gain ratio would keep it: a weakly damped step that is
    too long still starts along a useful path, and the search shortens it.

    Args:
      initial: the first λ > 0, relative to the curvature (it is kept above rounding); ``None`` for
        the precision to the power ¾.
      halvings: largest number of halvings of a step.

    Raises:
      ValueError: ``initial`` not positive, or ``halvings`` below 1.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.qr(), so.trust.line_search(1e-6))
    """

    def rule(trial: Trial, state: TrustState) -> TrustState:
        gain = trial.gain()
        accepted = trial.finite & (gain > ACCEPT)
        limits = jnp.finfo(state.scale.dtype)
        factor = 3 ** jnp.clip(-jnp.log2(trial.fraction) - 1, -1, 2)
        factor = jnp.maximum(factor, _slowest(trial.elsewhere()))
        scale = jnp.where(accepted, factor, 9) * state.scale
        scale = jnp.clip(scale, limits.eps, jnp.sqrt(limits.max))
        return _next(state, scale, state.factor, gain, accepted)

    def start(params: tree.Params) -> TrustState:
        small = jnp.finfo(tree.dtype(params)).eps ** 0.75
        return _state(small if initial is None else initial, params)

    return _closed_loop(start, rule, "damping", halvings=halvings)


@settings.checked(initial=settings.unscheduled(settings.LENGTH))
def radius(
    initial: tree.Real = jnp.inf, *, maximum: float = jnp.inf, interpolate: bool = False
) -> Trust:
    """A trust region: Δ to a quarter of the step on a poor gain, doubled on a good one at the edge.

    ρ < ¼: ``Δ = ‖d‖/4``; ρ > ¾ and the step at the boundary: ``min(2Δ, maximum)``; a step is taken
    where ρ > 1e-4 (Nocedal and Wright 2006, algorithm 4.1).

    Args:
      initial: the first Δ > 0. The default, infinity, takes ten times the scaled length of the
        parameters, since a whole first step may end on a flat tail; where they are zero, or the
        solver has no scaling, the first step gives the problem's own length.
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
        gain = trial.gain()
        accepted = trial.finite & (gain > ACCEPT)
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
        grown = jnp.minimum(grown, shown / _slowest(trial.elsewhere()))
        new = jnp.where(trial.boundary & (gain > 0.75), grown, shown)
        poor = ~accepted | (gain < 0.25)
        return _next(state, jnp.where(poor, shrunk, new), state.factor, gain, accepted)

    return _closed_loop(lambda params: _state(initial, params), rule, "radius")


# Of Hessian regions, which reject a third less often by it; on rows it costs Jacobians.
interpolated = functools.partial(radius, interpolate=True)


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
        gain = trial.gain()
        accepted = trial.finite & (gain > ACCEPT)
        sigma, limits = state.scale, jnp.finfo(state.scale.dtype)
        length = trial.length.astype(sigma.dtype)
        natural = jnp.abs(trial.predicted).astype(sigma.dtype) / length**3
        natural = jnp.where(jnp.isfinite(natural), natural, 1)
        raised = jnp.maximum(4 * sigma, natural)
        good = (gain > 0.9) & (trial.elsewhere() > GOOD)
        eased = jnp.where(good, sigma / 4, jnp.where(gain < 0.25, 2 * sigma, sigma))
        scale = jnp.where(accepted, eased, raised)
        return _next(state, jnp.minimum(scale, jnp.sqrt(limits.max)), state.factor, gain, accepted)

    return _closed_loop(lambda params: _state(initial, params), rule, "cubic")
