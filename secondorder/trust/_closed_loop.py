"""What policies share: their state, acceptance, and limits where the objective changes."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder import tree
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


def first_state(scale: tree.Scalar, params: tree.Params, factor: float = 2.0) -> TrustState:
    dtype = tree.dtype(params)
    real = lambda x: jax.lax.convert_element_type(x, dtype)
    return TrustState(
        real(scale), real(factor), jnp.zeros((), jnp.int32), real(jnp.inf), jnp.asarray(True)
    )


def next_state(state: TrustState, scale, factor, gain, accepted) -> TrustState:
    dtype = state.scale.dtype
    return TrustState(
        jnp.asarray(scale, dtype),
        jnp.asarray(factor, dtype),
        state.count + 1,
        jnp.asarray(gain, dtype),
        jnp.asarray(accepted, bool),
    )


def starting(init: Callable[[tree.Params], TrustState]) -> Callable[[tree.Params], TrustState]:
    """``init`` with room for the last accepted step."""

    def start(params: tree.Params) -> TrustState:
        state = init(params)
        unknown = jnp.full_like(state.scale, jnp.inf)
        return state._replace(last=Last(tree.zeros_like(params), jnp.zeros_like(unknown), unknown))

    return start


def closed_loop(
    init: Callable[[tree.Params], TrustState],
    rule: Callable[[Trial, TrustState], TrustState],
    gives: str,
    lazy: bool = False,
    halvings: int = 0,
) -> Trust:
    """A policy that tries its step, with at most ``halvings`` halvings; ``rule`` gets the trial."""

    def update(attempt: Attempt, state: TrustState) -> tuple[Step, TrustState]:
        step = attempt.choose(halvings)
        new = rule(attempt.trial(step, state.last), state)
        last = attempt.remembered(step, new.gain, new.accepted, state.last)
        return step, new._replace(last=last)

    return Trust(starting(init), update, gives, searches=bool(halvings), lazy=lazy)


def judged(trial: Trial) -> tuple[jax.Array, jax.Array]:
    """The gain of a trial, and whether the step is taken."""
    gain = trial.gain()
    return gain, trial.finite & (gain > ACCEPT)


def slowest(other: tree.Real) -> jax.Array:
    """The least factor of λ after a step with the gain ``other`` on another objective."""
    moved = jnp.where(other > GOOD, SLOWLY, jnp.where(other < -1, 1 / SLOWLY, 1))
    return jnp.where(jnp.isposinf(other), 0, moved)
