"""Softmax cross-entropy: ``M = diag(p) − p pᵀ`` for each example."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.losses._base import Loss, check_real_outputs


@dataclasses.dataclass(frozen=True, eq=False)
class SoftmaxCrossEntropy(Loss):
    """``−Σ_c t_c log softmax(z)_c``, averaged over all leading axes.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(so.losses.SoftmaxCrossEntropy(jnp.array([0]))(jnp.zeros((1, 10))).item(), 4)
      2.3026
    """

    averages = True

    labels: Any

    def _targets(self, z: jax.Array) -> jax.Array:
        labels = jnp.asarray(self.labels)
        if labels.shape == z.shape:
            return labels.astype(z.dtype)
        if labels.shape == z.shape[:-1] and jnp.issubdtype(labels.dtype, jnp.integer):
            # one_hot numbers the classes in the labels' dtype, where uint8 overflows at 256
            return jax.nn.one_hot(labels.astype(jnp.int32), z.shape[-1], dtype=z.dtype)
        raise ValueError(
            f"softmax_cross_entropy got labels of shape {labels.shape} and dtype {labels.dtype} "
            f"for logits of shape {z.shape}. Pass integer labels of shape {z.shape[:-1]} or "
            f"one-hot labels of shape {z.shape}."
        )

    def _logits(self, outputs):
        check_real_outputs(outputs, "softmax_cross_entropy")
        if not hasattr(outputs, "shape"):
            raise ValueError(
                "softmax_cross_entropy needs the model's output to be one array of logits, but it "
                f"is the tree {jax.tree.structure(outputs)}. Return its logits alone."
            )
        return tree.accumulator(outputs)

    def _parts(self, outputs):
        z = self._logits(outputs)
        t = self._targets(z)
        mass = jnp.sum(t, -1, keepdims=True)  # 1 for a label or a distribution over labels
        return z, t, mass, jax.nn.softmax(z, axis=-1)

    def weight(self, outputs) -> float:
        return 1.0 / max(math.prod(outputs.shape[:-1]), 1)

    def example_axes(self, output: jax.Array) -> int:
        return output.ndim - 1

    def __call__(self, outputs) -> jax.Array:
        z = self._logits(outputs)
        labels = jnp.asarray(self.labels)
        if jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == z.shape[:-1]:
            # Comparing fuses into the sum: no one-hot array of the outputs' size, and no gather,
            # which refuses logits sharded over the classes.
            labels = labels.astype(tree.joined(labels.dtype, jnp.int32))
            classes = jnp.arange(z.shape[-1], dtype=labels.dtype)
            hit = labels[..., None] == jnp.expand_dims(classes, range(labels.ndim))
            chosen, known = jnp.sum(jnp.where(hit, z, 0), axis=-1), jnp.any(hit, axis=-1)
            terms = jax.nn.logsumexp(z, axis=-1) - chosen
            return self.weight(outputs) * jnp.sum(
                tree.nan_unless(known, jnp.where(known, terms, 0))
            )
        t = self._targets(z)
        log_p = jax.nn.log_softmax(z, axis=-1)
        # A class with label 0 may be impossible: 0 · log 0 is 0. Other classes keep log p as the
        # derivative by their labels, even where those are 0.
        log_p = jnp.where((t == 0) & jnp.isneginf(log_p), 0, log_p)
        return -self.weight(outputs) * jnp.sum(t * log_p)

    def curvature(self, outputs, v):
        # M = w · mass · (diag(p) − p pᵀ) for each example
        _, _, mass, p = self._parts(outputs)
        p, mass, x = tree.together(p, mass, v)
        inner = _inner(p, x)
        return (self.weight(outputs) * mass * p * (x - inner)).astype(v.dtype)

    def _sqrt(self, p):
        # Floored so that S r = ∇ℓ holds where p of the label underflowed to 0.
        return jnp.sqrt(jnp.maximum(p, jnp.finfo(p.dtype).tiny))

    def root(self, outputs, u):
        # (diag(√p) − p √pᵀ)(diag(√p) − √p pᵀ) = diag(p) − p pᵀ, since √pᵀ√p = 1
        _, _, mass, p = self._parts(outputs)
        p, mass, x = tree.together(p, mass, u)
        s = self._sqrt(p)
        inner = _inner(s, x)
        return (jnp.sqrt(self.weight(outputs) * mass) * (s * x - p * inner)).astype(u.dtype)

    def root_transpose(self, outputs, v):
        _, _, mass, p = self._parts(outputs)
        p, mass, x = tree.together(p, mass, v)
        inner = _inner(p, x)
        root_w = jnp.sqrt(self.weight(outputs) * mass)
        return (root_w * self._sqrt(p) * (x - inner)).astype(v.dtype)

    def residual(self, outputs):
        # S (mass·p − t)/√p = mass·p − t, because the entries of mass·p − t sum to zero.
        _, t, mass, p = self._parts(outputs)
        root_w = jnp.sqrt(self.weight(outputs) / jnp.where(mass > 0, mass, 1))  # mass 0: padding
        return root_w * (mass * p - t) / self._sqrt(p)

    def sample(self, key, outputs):
        z, _, mass, p = self._parts(outputs)
        drawn = jax.nn.one_hot(jax.random.categorical(key, z), z.shape[-1], dtype=z.dtype)
        return jnp.sqrt(self.weight(outputs) * mass) * (p - drawn)


def softmax_cross_entropy(labels: Any) -> Loss:
    """``ℓ(z) = −(1/N) Σₙ log softmax(zₙ)[labelₙ]``: mean over all leading axes.

    ``M = (1/N)(diag(p) − p pᵀ)`` for each example, with root ``diag(√p) − p √pᵀ``.

    Args:
      labels: integers of shape ``logits.shape[:-1]``, or one-hot (or soft) labels shaped like the
        logits. Any other shape raises a ``ValueError``; a label out of range makes the loss NaN. A
        logit of −∞ excludes a class; it adds nothing where its label is 0.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(float(so.softmax_cross_entropy(jnp.array([0]))(jnp.zeros((1, 10)))), 4)
      2.3026
    """
    return SoftmaxCrossEntropy(labels)


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    # Not a sum of products: under vmap XLA on CPUs (JAX 0.10.2) computes it wrongly in float32.
    if not jax.typeof(a).sharding.mesh.empty:  # a contraction fails for explicitly sharded classes
        return jnp.sum(a * b, axis=-1, keepdims=True)
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("...k,...k->...", a, b, precision=highest)[..., None]
