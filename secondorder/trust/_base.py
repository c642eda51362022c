"""HOW FAR a step is trusted: from the outcome of a trial to the scalar of the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from secondorder.tree import Params


class Trial(NamedTuple):
    """A proposed step, as a trust policy gets it.

    The gain is a function, so that a policy which does not call it costs no evaluation.

    Attributes:
      gain: ``() -> ρ``, actual over predicted change, below +∞; −∞ where the trial is not finite or
        the model predicts no decrease.
      predicted: the model's change, negative.
      length: the step's length in the solver's norm.
      boundary: whether the step was cut at the radius.
      finite: whether gradient and step hold neither NaN nor infinity.
      fraction: how far along the solver's step it goes, where the policy searches.
    """

    gain: Callable[[], jax.Array]
    predicted: jax.Array
    length: jax.Array
    boundary: jax.Array
    finite: jax.Array
    fraction: jax.Array | float = 1.0


class TrustState(NamedTuple):
    """The state of every trust policy.

    Attributes:
      scale: the scalar the solver gets next: a damping λ, a radius Δ or a cubic weight σ.
      factor: by how much a further rejection changes it.
      count: updates so far.
      gain: the last gain ratio; infinity where the policy computed none.
      accepted: whether the last step was taken.
    """

    scale: jax.Array
    factor: jax.Array
    count: jax.Array
    gain: jax.Array
    accepted: jax.Array


class Trust(NamedTuple):
    """A trust policy.

    Attributes:
      init: ``params -> TrustState``; ``params`` settles the dtype of the scalars.
      update: ``(trial, TrustState) -> TrustState``.
      gives: what its scalar means: ``"damping"``, ``"radius"``, ``"cubic"`` or ``"any"``.
      scale: ``TrustState -> scalar``, what the solver gets now. An open-loop policy evaluates its
        schedule or (injected) hyperparameter anew, for the state has an older value.
      evaluates: whether it computes the gain, which takes the objective.
      searches: how many of the fractions 1, ½, ¼, ... of the step it tries, up to the first after
        which the objective rises again; 0 for none.
      lazy: whether the slope at the trial is taken only where the difference of two values is
        rounding; a tangent is spared then, at the price of a branch.
    """

    init: Callable[[Params], TrustState]
    update: Callable[[Trial, TrustState], TrustState]
    gives: str
    scale: Callable[[TrustState], jax.Array] = lambda state: state.scale
    evaluates: bool = True
    lazy: bool = False
    searches: int = 0
