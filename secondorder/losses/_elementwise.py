"""Losses that are sums over single outputs with one target each: ``M`` is diagonal."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.losses._base import Loss, Outputs, check_real_outputs, count_examples


def _sum(x: Outputs) -> jax.Array:
    dtype = tree.dtype(x)
    return sum((jnp.sum(leaf, dtype=dtype) for leaf in jax.tree.leaves(x)), jnp.zeros((), dtype))


@dataclasses.dataclass(frozen=True, eq=False)
class Elementwise(Loss):
    """``w Σᵢ φ(zᵢ; tᵢ)``: each output has its own target and its own curvature ``φ''``.

    A subclass defines ``phi`` with its first derivative ``slope`` and its second derivative
    ``bend``, as functions of one output and one target; and ``draw``, a sampler of targets, where
    ``φ`` is a negative log-likelihood.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> isinstance(so.squared_error(jnp.zeros(2)), so.losses.Elementwise)
      True
    """

    averages = True
    by_parts = False  # whether complex outputs are allowed, as two outputs each

    targets: Outputs

    def phi(self, z, t):
        raise TypeError(f"{type(self).__name__} defines no phi.")

    def slope(self, z, t):
        raise TypeError(f"{type(self).__name__} defines no slope.")

    def bend(self, z, t):
        raise TypeError(f"{type(self).__name__} defines no bend.")

    def draw(self, key: jax.Array, z: jax.Array) -> jax.Array:
        """``t − E[t]`` for a target drawn from the model with natural parameter ``z``."""
        return super().sample(key, z)  # raises: not a likelihood

    @property
    def is_likelihood(self) -> bool:
        return (
            type(self).draw is not Elementwise.draw or type(self).sample is not Elementwise.sample
        )

    def weight(self, outputs: Outputs) -> float:
        return 1.0 / max(count_examples(outputs), 1)

    def __call__(self, outputs: Outputs) -> jax.Array:
        return self.weight(outputs) * _sum(self._map(self.phi, outputs))

    def _map(self, fn, outputs: Outputs, *rest: Outputs) -> Outputs:
        outputs = tree.parts(outputs)
        if not self.by_parts:
            check_real_outputs(outputs, type(self).__name__)
        targets = self._targets(outputs)
        wide = tree.accumulator(outputs)
        return jax.tree.map(lambda z, t, *r: fn(z, t.astype(z.dtype), *r), wide, targets, *rest)

    def _targets(self, outputs: Outputs) -> Outputs:
        targets = jax.tree.map(jnp.asarray, self.targets)
        name, whole = type(self).__name__, tree.whole(outputs)
        tree.check_match(targets, whole, f"the target of {name}", "the model's output")

        def alike(t: jax.Array, z: jax.Array) -> jax.Array:
            if tree.is_complex(t) and not tree.is_complex(z):
                raise TypeError(
                    f"The targets of {name} are complex, but the model's output is real. Return a "
                    "complex output, or compare it with a part of the targets, such as jnp.real."
                )
            return t.astype(z.dtype) if tree.is_complex(z) else t

        return tree.parts(jax.tree.map(alike, targets, whole))

    def curvature(self, outputs: Outputs, v: Outputs) -> Outputs:
        w = self.weight(outputs)
        return self._map(lambda z, t, x: tree.times(w * self.bend(z, t), x), outputs, v)

    def _sqrt(self, z, t, w):
        # Floored so that S r = ∇ℓ holds for a saturated output (φ'' underflowed to 0, φ' not); w
        # stays outside the root, since w · tiny would be flushed to zero.
        return math.sqrt(w) * jnp.sqrt(jnp.maximum(self.bend(z, t), jnp.finfo(z.dtype).tiny))

    def root(self, outputs: Outputs, u: Outputs) -> Outputs:
        w = self.weight(outputs)
        return self._map(lambda z, t, x: tree.times(self._sqrt(z, t, w), x), outputs, u)

    def root_transpose(self, outputs: Outputs, v: Outputs) -> Outputs:
        return self.root(outputs, v)  # S is diagonal

    def residual(self, outputs: Outputs) -> Outputs:
        w = self.weight(outputs)
        return self._map(lambda z, t: w * self.slope(z, t) / self._sqrt(z, t, w), outputs)

    def sample(self, key: jax.Array, outputs: Outputs) -> Outputs:
        leaves, structure = jax.tree.flatten(tree.accumulator(outputs))
        keys = [jax.random.fold_in(key, i) for i in range(len(leaves))]
        root_w = math.sqrt(self.weight(outputs))
        drawn = [-root_w * self.draw(k, z) for k, z in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, drawn)


class SquaredError(Elementwise):
    """``½ (z − t)²``, and ``½ |z − t|²`` of complex outputs.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.losses.SquaredError(jnp.zeros(2))(jnp.array([1.0, 3.0])).item()
      2.5
    """

    least_squares = True
    by_parts = True

    def phi(self, z, t):
        return 0.5 * (z - t) ** 2

    def slope(self, z, t):
        return z - t

    def bend(self, z, t):
        return jnp.ones_like(z)

    def draw(self, key, z):
        return jax.random.normal(key, z.shape, z.dtype)


class SigmoidCrossEntropy(Elementwise):
    """``log(1 + eᶻ) − t z``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(so.losses.SigmoidCrossEntropy(jnp.array([1.0]))(jnp.zeros(1)).item(), 4)
      0.6931
    """

    def phi(self, z, t):
        return jax.nn.softplus(z) - t * z

    def slope(self, z, t):
        return jax.nn.sigmoid(z) - t

    def bend(self, z, t):
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)

    def draw(self, key, z):
        p = jax.nn.sigmoid(z)
        return jax.random.bernoulli(key, p).astype(z.dtype) - p


class Poisson(Elementwise):
    """``eᶻ − t z``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.losses.Poisson(jnp.array([2.0]))(jnp.zeros(1)).item()
      1.0
    """

    def phi(self, z, t):
        return jnp.exp(z) - t * z

    def slope(self, z, t):
        return jnp.exp(z) - t

    def bend(self, z, t):
        return jnp.exp(z)

    def draw(self, key, z):
        rate = jnp.exp(z)
        return jax.random.poisson(key, rate).astype(z.dtype) - rate


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(Elementwise):
    """``Σᵢ φ(rᵢ)`` over residuals: no targets, no mean.

    Example:
      >>> import secondorder as so
      >>> isinstance(so.losses.half_sum_of_squares(), so.losses.Sum)
      True
    """

    averages = False

    targets: Outputs = None

    def _targets(self, outputs: Outputs) -> Outputs:
        return tree.zeros_like(outputs)

    def weight(self, outputs: Outputs) -> float:
        return 1.0


class HalfSumOfSquares(Sum, SquaredError):
    """``½ Σ rᵢ²``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.losses.HalfSumOfSquares()(jnp.array([1.0, 2.0])).item()
      2.5
    """

    def __repr__(self) -> str:
        return "HalfSumOfSquares()"


def squared_error(targets: Outputs) -> Loss:
    """``ℓ(z) = (1/N) Σₙ ½‖zₙ − tₙ‖²``: mean over the N examples (leading axis), sum over the rest.

    The negative log-likelihood of a Gaussian of unit variance, up to a constant; ``M = I/N``.

    Args:
      targets: array or pytree of arrays shaped like the model's outputs. A shape that only
        broadcasts, such as ``(N,)`` against ``(N, 1)``, raises a ``ValueError``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.squared_error(jnp.array([0.0, 0.0]))(jnp.array([1.0, 3.0])))
      2.5
    """
    return SquaredError(targets)


def sigmoid_cross_entropy(labels: Outputs) -> Loss:
    """``ℓ(z) = (1/N) Σₙ Σ log(1 + eᶻ) − t z``: mean over examples, sum over outputs of one example.

    ``M`` is diagonal, ``σ(z)(1 − σ(z))/N``. ``labels`` in ``[0, 1]``, shaped like the logits.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(float(so.sigmoid_cross_entropy(jnp.array([1.0]))(jnp.zeros(1))), 4)
      0.6931
    """
    return SigmoidCrossEntropy(labels)


def poisson(counts: Outputs) -> Loss:
    """``ℓ(z) = (1/N) Σₙ Σ eᶻ − t z``, the Poisson likelihood with log-rate ``z``; ``M = eᶻ/N``.

    Mean over examples, sum over the outputs of one example; without the constant ``log t!``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.poisson(jnp.array([2.0]))(jnp.zeros(1)))
      1.0
    """
    return Poisson(counts)


def half_sum_of_squares() -> Loss:
    """``ℓ(r) = ½ Σ r²``: the loss of nonlinear least squares; ``M = I``. A sum, not a mean.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.losses.half_sum_of_squares()(jnp.array([1.0, 2.0])).item()
      2.5
    """
    return HalfSumOfSquares()
