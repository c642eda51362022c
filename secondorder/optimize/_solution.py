"""Result of a solve."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import jax
import numpy as np

from secondorder.optimize._packing import Packed
from secondorder.optimize._records import Evaluations, History, Status
from secondorder.optimize._report import solution_text
from secondorder.tree import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Solution:
    """Result of a solve; a pytree.

    Attributes:
      params: the parameters.
      value: the objective there.
      grad_norm: ``‖∇f‖₂`` there, over the parameters not held at a bound.
      steps: number of updates, rejected ones included.
      evaluations: an :class:`Evaluations`.
      status: a :class:`Status`, as an integer array.
      success: whether the status is ``CONVERGED``.
      projected: whether the start lay outside the bounds and was moved onto them.
      history: a :class:`History`, or ``None`` with ``history=0``.
      loop: the state of the loop, packed; pass the solution as ``params`` to continue from it.
      unit: divisor of the residuals inside the loop: 1, unless squares of ``least_squares``'s
        residuals would overflow or underflow.
      method: name of the default that was chosen, or ``"given"``.
      aux: auxiliary output of the function at ``params``, with ``has_aux=True``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> solution = so.minimize(lambda p: jnp.sum((p - 3.0) ** 2), jnp.zeros(2))
      >>> solution.params.tolist(), solution.success.item()
      ([3.0, 3.0], True)
    """

    params: Params
    value: jax.Array
    grad_norm: jax.Array
    steps: jax.Array
    evaluations: Evaluations
    status: jax.Array
    success: jax.Array
    projected: jax.Array
    history: History | None
    loop: Packed
    unit: jax.Array
    method: str = dataclasses.field(metadata={"static": True})
    aux: Any = None

    @property
    def state(self) -> Any:
        """The optimizer's last state."""
        return self.loop.packing.unpack(self.loop).state

    @property
    def message(self) -> str:
        """The status in a sentence (not under ``jit``); of a batch, how often each."""
        found = collections.Counter(np.ravel(self.status).tolist()).most_common()
        if len(found) == 1:
            return Status(found[0][0]).sentence
        return " ".join(f"{count} times: {Status(status).sentence}" for status, count in found)

    def __repr__(self) -> str:
        return solution_text(self)
