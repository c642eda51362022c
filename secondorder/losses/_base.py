"""Interface of a loss with its curvature; count of its examples."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from secondorder import tree

Outputs = Any  # a pytree of arrays


class Loss:
    """Interface of a loss: ``loss(outputs) -> scalar``, and its curvature by the outputs.

    Examples are independent: ``M`` is block-diagonal over the ``example_axes(z)`` leading axes of
    each output array, and ``weight(outputs)`` is the factor in front of the sum over examples
    (``1/N`` for a mean, 1 for a sum). ``least_squares`` declares that ``‖residual‖²`` measures the
    loss itself, not only its slope: for a likelihood with a certain but wrong prediction it has no
    bound. ``semidefinite`` declares that ``M`` has no negative eigenvalue. ``averages``: True for a
    mean over examples, False for a sum, ``None`` if unknown.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> loss = so.squared_error(jnp.zeros(2))
      >>> isinstance(loss, so.losses.Loss), loss.curvature(jnp.zeros(2), jnp.ones(2)).tolist()
      (True, [0.5, 0.5])
    """

    least_squares = False
    semidefinite = True
    averages: ClassVar[bool | None] = None

    def __call__(self, outputs: Outputs) -> jax.Array:
        raise TypeError(f"{type(self).__name__} defines no value.")

    def curvature(self, outputs: Outputs, v: Outputs) -> Outputs:
        """``M v``; positive semi-definite, except for a non-convex :class:`AnyLoss`."""
        raise TypeError(f"{type(self).__name__} defines no curvature product.")

    def root(self, outputs: Outputs, u: Outputs) -> Outputs:
        """``S u`` with ``S Sᵀ = M``; ``u`` is shaped like the outputs."""
        raise TypeError(f"{type(self).__name__} defines no root of its curvature.")

    def root_transpose(self, outputs: Outputs, v: Outputs) -> Outputs:
        """``Sᵀ v``."""
        (u,) = jax.linear_transpose(lambda u: self.root(outputs, u), v)(v)
        return u

    def signed(self, outputs: Outputs, signs: Outputs) -> Outputs:
        """``S u`` for random signs ``u``, a ``v`` with ``E[v vᵀ] = M``."""
        return self.root(outputs, signs)

    @property
    def is_likelihood(self) -> bool:
        """Whether the loss can sample targets."""
        return type(self).sample is not Loss.sample

    def residual(self, outputs: Outputs) -> Outputs:
        """The ``r`` with ``S r = ∇ℓ(z)``, so that locally ``ℓ`` is ``½‖r + Sᵀ dz‖²`` + constant."""
        raise TypeError(f"{type(self).__name__} defines no residual.")

    def sample(self, key: jax.Array, outputs: Outputs) -> Outputs:
        """A random ``v`` with ``E[v vᵀ] = M``: the score of a target drawn from the model."""
        raise TypeError(
            f"{self!r} is not the negative log-likelihood of a model, so it has no targets to "
            "sample and no Fisher matrix. Use ggn(objective, params), for a method that samples "
            "estimator=secondorder.curvature.ggn_sample(), or one of squared_error, "
            "softmax_cross_entropy, sigmoid_cross_entropy, poisson as the loss."
        )

    def weight(self, outputs: Outputs) -> float:
        """The factor in front of the sum over examples."""
        raise TypeError(
            f"{self!r} is a plain function of the outputs, so its terms for single examples are "
            "not known. Use one of the library's losses, such as squared_error(targets)."
        )

    def example_axes(self, output: jax.Array) -> int:
        """The number of leading axes of an output array that count examples."""
        return min(1, output.ndim)


def check_real_outputs(outputs: Outputs, loss: str) -> None:
    """Raise a ``TypeError`` for complex outputs, whole or in parts."""
    is_parts = lambda z: isinstance(z, tree.Parts)
    for z in jax.tree.leaves(outputs, is_leaf=is_parts):
        if is_parts(z) or tree.is_complex(z):
            raise TypeError(
                f"{loss} needs real outputs, but the model returned complex ones. Return their "
                "real part or jnp.abs(z) ** 2, or take squared_error, which splits them."
            )


def count_examples(outputs: Outputs) -> int:
    """The number of examples: the leading axis of the outputs (1 for scalar outputs).

    Raises:
      ValueError: the outputs have different leading axes.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.losses.count_examples(jnp.zeros((5, 3)))
      5
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(outputs)]
    leading = {shape[:1] for shape in shapes}
    if len(leading) > 1:
        raise ValueError(
            "Examples are counted along the leading axis of the model's outputs, which must be one "
            f"length, but the outputs have the shapes {shapes}. For residuals that belong to no "
            "examples, use sum_of_squares(residual) with hessian or ggn."
        )
    return math.prod(leading.pop()) if leading else 1
