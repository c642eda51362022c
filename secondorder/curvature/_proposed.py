"""Curvature whose Newton step is the direction of an Optax transformation."""

from __future__ import annotations

import dataclasses

import jax
import optax

from secondorder import settings, tree
from secondorder.curvature._base import Curvature
from secondorder.operators._base import Operator
from secondorder.tree import Params, Scalar


@dataclasses.dataclass(frozen=True, eq=False)
class Proposal(Operator):
    """An operator ``B`` with ``B⁻¹ g = −d`` for the current gradient, and no products.

    Attributes:
      step: ``d``.
    """

    step: Params

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``−d``, for any ``v`` and damping."""
        del damping
        return tree.negative(tree.cast(self.step, v))


@settings.checked()
def proposed(direction: optax.GradientTransformation) -> Curvature:
    """A curvature with ``B⁻¹ g = −d``, ``d`` the update of an Optax transformation.

    With an exact curvature, ``preconditioned(exact(ggn), proposed(optax.adam(1.0)))``, a solver
    such as ``optimal_scaling(apply_inverse())`` chooses the length of ``d``. After a rejected step
    the state of the transformation is restored.

    Args:
      direction: an Optax transformation, called with gradients and parameters in at least float32.
        Its learning rate has no effect.

    Example:
      >>> import optax, secondorder as so
      >>> model = so.curvature.preconditioned(
      ...     so.exact(so.ggn), so.curvature.proposed(optax.scale_by_adam()))
    """

    def update(grads, state, params, value_fn) -> tuple[Operator, optax.OptState]:
        del value_fn
        wide = tree.accumulator
        with jax.numpy_dtype_promotion("standard"):  # Optax raises a decay to an integer count
            step, state = direction.update(wide(grads), state, wide(params))
        return Proposal(step), state

    init = lambda params: direction.init(tree.accumulator(tree.zeros_like(params)))
    return Curvature(init, update, needs_value_fn=False)
