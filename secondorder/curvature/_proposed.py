"""The direction of any Optax transformation, as a curvature of which one solution is known."""

from __future__ import annotations

import dataclasses

import optax

from secondorder import settings, tree
from secondorder.curvature._base import Curvature
from secondorder.operators._base import Operator
from secondorder.tree import Params, Scalar


@dataclasses.dataclass(frozen=True, eq=False)
class Proposal(Operator):
    """A ``B`` with ``B⁻¹ g = −d``; nothing else of it is known.

    Attributes:
      step: ``d``.
    """

    step: Params

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``−d``, whatever the damping."""
        del damping
        return tree.negative(tree.cast(self.step, v))


@settings.checked()
def proposed(direction: optax.GradientTransformation) -> Curvature:
    """Whatever Optax transformation: the direction that it proposes, for a model to scale.

    Beside an exact curvature, ``preconditioned(exact(ggn), proposed(optax.adam(1.0)))``, a solver
    such as ``momentum(apply_inverse())`` chooses its length. Where a step is rejected, the
    transformation's memory is rolled back.

    Args:
      direction: called with gradients and parameters alone, in at least float32; its memory begins
        at zeros of their shape. Its own learning rate changes nothing.

    Example:
      >>> import optax, secondorder as so
      >>> model = so.curvature.preconditioned(
      ...     so.exact(so.ggn), so.curvature.proposed(optax.scale_by_adam()))
    """

    def update(grads, state, params, value_fn) -> tuple[Operator, optax.OptState]:
        del value_fn
        wide = tree.accumulator
        step, state = direction.update(wide(grads), state, wide(params))
        return Proposal(step), state

    init = lambda params: direction.init(tree.accumulator(tree.zeros_like(params)))
    return Curvature(init, update, needs_value_fn=False)
