"""An L2 penalty that Gauss-Newton methods see: a term of the loss, with its own curvature."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

import secondorder as so


@dataclasses.dataclass(frozen=True, eq=False)
class Penalised(so.losses.Loss):
    """`loss(predictions) + ½ λ ‖weights‖²`, of the model's outputs `(predictions, weights)`.

    A plain function of the outputs would give the same values. This one keeps the closed-form
    curvature of `loss`: the whole is block-diagonal, its second block λ times the identity.
    """

    loss: so.losses.Loss
    strength: float

    def __call__(self, outputs):
        predictions, weights = outputs
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(weights))
        return self.loss(predictions) + 0.5 * self.strength * squares

    def curvature(self, outputs, v):
        return self.loss.curvature(outputs[0], v[0]), _scaled(self.strength, v[1])

    def root(self, outputs, u):
        return self.loss.root(outputs[0], u[0]), _scaled(math.sqrt(self.strength), u[1])

    def root_transpose(self, outputs, v):
        return self.loss.root_transpose(outputs[0], v[0]), _scaled(math.sqrt(self.strength), v[1])

    def residual(self, outputs):
        return self.loss.residual(outputs[0]), _scaled(math.sqrt(self.strength), outputs[1])


def _scaled(factor: float, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: factor * leaf, tree)
