"""Covariance of fitted parameters: from a Jacobian, and the scatter of the residuals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import meshes, tree
from secondorder.losses import Robust
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._jacobian import Jacobian
from secondorder.optimize._projection import scaled_svd
from secondorder.tree import Params, Scalar


class Noise(NamedTuple):
    """The scale of a fit's errors, and what it comes from.

    Attributes:
      slopes: ``ψ``, the derivatives of the loss by the residuals; the residuals themselves for
        least squares.
      bend: the mean of ``ψ'``; 1 for least squares.
      inflation: Huber's correction for few observations; 1 for least squares.
    """

    slopes: Params
    bend: Scalar
    inflation: Scalar


def noise_of(
    outputs: Params,
    loss: Callable[[Any], jax.Array] | None,
    kept: jax.Array | None,
    count: jax.Array,
    directions: jax.Array,
) -> Noise:
    """Huber's ``ψ`` and its moments at the solution; see :func:`secondorder.curve_fit`."""
    if not isinstance(loss, Robust):
        return Noise(outputs, 1, 1)
    r = ravel(outputs)
    weight = jnp.ones_like(r) if kept is None else jnp.resize(kept, r.shape).astype(r.dtype)
    _, first, second = loss.rho((r / loss.scale) ** 2)
    bends = first + 2 * second * (r / loss.scale) ** 2
    mean = jnp.sum(weight * bends) / count
    spread = jnp.sum(weight * (bends - mean) ** 2) / count
    bend = jnp.where(mean > 0, mean, 1)
    inflation = jnp.where(mean > 0, 1 + directions / count * spread / bend**2, jnp.inf)
    return Noise(first * r, bend, inflation)


def unit_of(noise: Noise, freedom: jax.Array) -> jax.Array:
    """The factor of the errors: ``√(‖ψ‖²/(m − k))`` over the mean of ``ψ'``."""
    size = tree.norm(noise.slopes).astype(freedom.dtype)
    unit = jnp.where(freedom > 0, size / jnp.sqrt(jnp.maximum(freedom, 1)), jnp.inf)
    return unit * (noise.inflation / noise.bend)


def spread_of(whole: Callable[[Params], Params], free: Params, held: jax.Array) -> jax.Array:
    """The derivatives of all parameters by the free ones, ``(n, free)``."""
    vector = lambda v: ravel(whole(tree.cast(unravel(v, free), free)))
    return jnp.where(held[None, :], 0, jax.jacfwd(vector)(ravel(free)))


def rows_of(at: Jacobian) -> jax.Array:
    leaves = meshes.gathered_leaves(at.dense())
    as_matrix = lambda x: x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # also of no columns
    return jnp.concatenate([as_matrix(columns) for columns in leaves])


def undetermined(rows: jax.Array, spread: jax.Array | None) -> jax.Array:
    """Mask of the parameters with a part in the null space of the rows, above rounding.

    Args:
      spread: the derivatives of all parameters by those of the rows; ``None`` if they are the same.
    """
    _, _, vt, norms, kept = scaled_svd(rows)
    v = jnp.where(kept[:, None], vt, 0)
    off = jnp.eye(v.shape[1], dtype=v.dtype) - jnp.matmul(v.T, v, precision="highest")
    size = jnp.ones((), v.dtype)
    if spread is not None:
        along = jax.lax.stop_gradient(spread) / norms[None]
        size = jnp.linalg.norm(along, axis=1)
        off = jnp.matmul(off, along.T, precision="highest")
    eps = jnp.finfo(v.dtype).eps
    return ~(jnp.linalg.norm(off, axis=0) <= jnp.sqrt(eps) * size)  # also for NaN
