"""The trust protocol: the outcome of a trial in, the scalar of the next solve out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from secondorder.step import Step
from secondorder.tree import Params


class Trial(NamedTuple):
    """The outcome of a step, which the rule of a policy reads.

    The gain is a function, so that a rule which does not call it costs no evaluation.

    Attributes:
      gain: ``() -> ρ``, actual over predicted change, below +∞; −∞ where the trial is not finite or
        the model predicts no decrease.
      predicted: the model's change, negative.
      length: the step's length in the solver's norm.
      boundary: whether the step ends at the radius.
      finite: whether gradient and step contain neither NaN nor infinity.
      fraction: fraction of the solver's step that is taken, where the policy searches.
      slope: ``() -> g·d``; zero if it is not known.
      elsewhere: ``() ->`` the gain of the last step on this objective, if it differs from the
        objective of that step, such as by a new batch; +∞ if it is the same, or unknown.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> numbers = {"predicted": jnp.array(-1.0), "length": jnp.array(1.0)}
      >>> flags = {"boundary": jnp.array(False), "finite": jnp.array(True)}
      >>> trial = so.trust.Trial(gain=lambda: jnp.array(0.5), **numbers, **flags)
      >>> trial.gain().item()
      0.5
    """

    gain: Callable[[], jax.Array]
    predicted: jax.Array
    length: jax.Array
    boundary: jax.Array
    finite: jax.Array
    fraction: jax.Array | float = 1.0
    slope: Callable[[], jax.Array | float] = lambda: 0.0
    elsewhere: Callable[[], jax.Array | float] = lambda: math.inf


class Last(NamedTuple):
    """The last accepted step, for its gain on the next objective.

    Attributes:
      step: its direction.
      predicted: the model's change.
      value: the value of its objective after the step.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> last = so.trust.Last(jnp.zeros(2), predicted=jnp.array(-1.0), value=jnp.array(3.0))
      >>> last.value.item()
      3.0
    """

    step: Params
    predicted: jax.Array
    value: jax.Array


class TrustState(NamedTuple):
    """The state of every trust policy.

    Attributes:
      scale: the scalar for the next solve: a damping λ, a radius Δ or a cubic weight σ.
      factor: factor of its change at a further rejection.
      count: number of updates.
      gain: the last gain ratio; infinity where the policy computed none.
      accepted: whether the last step was taken.
      last: the :class:`Last` accepted step; ``()`` for a policy that does not use it.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.trust.damping(0.5).init(jnp.zeros(2)).scale.item()
      0.5
    """

    scale: jax.Array
    factor: jax.Array
    count: jax.Array
    gain: jax.Array
    accepted: jax.Array
    last: Last | tuple[()] = ()


class Trust(NamedTuple):
    """A trust policy: chooses among the candidates of a step, and the scalar of the next solve.

    Attributes:
      init: ``params -> TrustState``; ``params`` determines the dtype of the scalars.
      update: ``(Attempt, TrustState) -> (Step, TrustState)``: the chosen step, and whether it is
        accepted (``TrustState.accepted``).
      gives: kind of its scalar: ``"damping"``, ``"radius"``, ``"cubic"`` or ``"any"``.
      scale: ``TrustState -> scalar``, for the current solve. An open-loop policy evaluates its
        schedule or (injected) hyperparameter again, since the state has an older value.
      evaluates: whether it evaluates the objective.
      searches: whether it tries fractions of a step's path.
      lazy: whether the slope at the trial is computed only where the difference of two values is
        rounding; this saves a tangent and costs a branch.

    Example:
      >>> import secondorder as so
      >>> policy = so.trust.damping()
      >>> isinstance(policy, so.trust.Trust), policy.gives
      (True, 'damping')
    """

    init: Callable[[Params], TrustState]
    update: Callable[[Any, TrustState], tuple[Step, TrustState]]
    gives: str
    scale: Callable[[TrustState], jax.Array] = lambda state: state.scale
    evaluates: bool = True
    searches: bool = False
    lazy: bool = False
