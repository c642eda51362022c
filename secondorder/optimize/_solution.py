"""Result of a solve."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from secondorder import tree
from secondorder.notices import page
from secondorder.optimize._packing import Packed
from secondorder.optimize._records import Evaluations, History, Status
from secondorder.optimize._report import solution_text
from secondorder.tree import Params

CURES = {
    Status.MAX_STEPS: "Pass the solution as params to go on, with a larger max_steps.",
    Status.LIMIT_OF_PRECISION: "Switch on float64 (jax_enable_x64), or raise tol.",
    Status.TRUST_LIMIT: "Compare the gradient with finite differences, and look for random numbers "
    "or rounding in the objective.",
    Status.STAGNATED: "Raise the learning rate, or take a method with a trust policy.",
    Status.NONFINITE: "Look for log, sqrt or a division outside of their domain.",
    Status.NO_EFFECT: "Start elsewhere, or bound the parameter.",
    Status.AT_INFINITY: "Bound the parameters, or add a penalty.",
    Status.NOT_AFFINE: "Leave the parameter out of separable.",
}


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
        """The status in a sentence (not under ``jit``); of a batch, how often each.

        Of a failure also what to do.
        """
        found = collections.Counter(np.ravel(self.status).tolist()).most_common()
        if len(found) == 1:
            status = Status(found[0][0])
            cure = CURES.get(status, "")
            if status == Status.LIMIT_OF_PRECISION and tree.dtype(self.params) == jnp.float64:
                cure = "Choose better units of the data, or raise tol."
            return f"{status.sentence} {cure} {page('statuses')}" if cure else status.sentence
        return " ".join(f"{count} times: {Status(status).sentence}" for status, count in found)

    def __repr__(self) -> str:
        return solution_text(self)
