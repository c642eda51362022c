"""Policies of a damping: fixed, by the gain ratio, and by a line search."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from secondorder import settings, tree
from secondorder.step import Step
from secondorder.trust._attempt import Attempt
from secondorder.trust._base import Trial, Trust, TrustState
from secondorder.trust._closed_loop import closed_loop, first_state, judged, next_state, slowest


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
        return step, next_state(state, at(state.count + 1), state.factor, jnp.inf, finite)

    def now(state: TrustState) -> jax.Array:
        return jnp.asarray(at(state.count), state.scale.dtype)

    start = lambda params: first_state(at(jnp.zeros((), jnp.int32)), params)
    return Trust(start, update, "any", now, evaluates=False)


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
        untried = lambda: next_state(state, state.scale, state.factor, jnp.inf, trial.finite)
        due = (state.count % trial_every == 0) | ~state.accepted
        return jax.lax.cond(due, lambda: tried(trial, state), untried)

    def tried(trial: Trial, state: TrustState) -> TrustState:
        gain, accepted = judged(trial)
        limits = jnp.finfo(state.scale.dtype)
        scale, factor = adapt(state.scale, state.factor, jnp.maximum(gain, -1), accepted)
        if halvings:
            halved = -jnp.log2(trial.fraction)
            scale = jnp.where(accepted & (halved > 0), 1.5**halved * state.scale, scale)
        # The gain on the batch of the step is always good, so the gain on another batch decides.
        other = trial.elsewhere()
        changed = ~jnp.isposinf(other)
        least = slowest(other)
        most = jnp.where(changed & (gain > -jnp.inf), 1.5, jnp.inf)
        scale = jnp.clip(scale, least * state.scale, most * state.scale)
        # Kept finite and off zero, so that λ can always come back; factor likewise.
        scale = jnp.clip(scale, limits.eps**2, jnp.sqrt(limits.max))
        return next_state(state, scale, jnp.minimum(factor, 1e6), gain, accepted)

    start = lambda params: first_state(initial, params)
    return closed_loop(start, rule, "damping", lazy, halvings)


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
        gain, accepted = judged(trial)
        limits = jnp.finfo(state.scale.dtype)
        factor = 3 ** jnp.clip(-jnp.log2(trial.fraction) - 1, -1, 2)
        factor = jnp.maximum(factor, slowest(trial.elsewhere()))
        scale = jnp.where(accepted, factor, 9) * state.scale
        scale = jnp.clip(scale, limits.eps, jnp.sqrt(limits.max))
        return next_state(state, scale, state.factor, gain, accepted)

    def start(params: tree.Params) -> TrustState:
        small = jnp.finfo(tree.dtype(params)).eps ** 0.75
        return first_state(small if initial is None else initial, params)

    return closed_loop(start, rule, "damping", halvings=halvings)
