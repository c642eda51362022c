"""Linear combinations, leaf by leaf, and what else keeps the shapes of a tree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from secondorder import meshes
from secondorder.tree._dtypes import leaf_dtype, together
from secondorder.tree._types import Params, Scalar


def times(a: jax.Array, x: jax.Array) -> jax.Array:
    """``a x`` of two arrays, in the dtype of ``x``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.times(jnp.array(2.0), jnp.ones(2)).tolist()
      [2.0, 2.0]
    """
    left, right = together(a, x)
    return (left * right).astype(x.dtype)


def axpy(alpha: Scalar, x: Params, y: Params) -> Params:
    """``α x + y``, in the dtype of ``y``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.axpy(2.0, x, x)["a"].tolist()
      [3.0, -6.0]
    """
    return jax.tree.map(lambda xi, yi: jnp.asarray(alpha * xi + yi, leaf_dtype(yi)), x, y)


def scale(alpha: Scalar, x: Params) -> Params:
    """``α x``, in the dtype of ``x``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.scale(2.0, x)["a"].tolist()
      [2.0, -4.0]
    """
    return jax.tree.map(lambda xi: jnp.asarray(alpha * xi, leaf_dtype(xi)), x)


def add(x: Params, y: Params) -> Params:
    """``x + y``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.add(x, x)["a"].tolist()
      [2.0, -4.0]
    """
    return jax.tree.map(jnp.add, x, y)


def negative(x: Params) -> Params:
    """``−x``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.negative(x)["a"].tolist()
      [-1.0, 2.0]
    """
    return jax.tree.map(jnp.negative, x)


def where(condition: Scalar, x: Params, y: Params) -> Params:
    """``x`` where the scalar ``condition`` holds, else ``y``; also for whole states.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.where(jnp.array(True), x, so.tree.scale(0.0, x))["b"].item()
      2.0
    """
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def only(mask: Params, x: Params) -> Params:
    """``x`` where the tree of booleans holds, zero elsewhere.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.only({"a": True, "b": False}, x)["b"].item()
      0.0
    """
    return jax.tree.map(lambda m, leaf: jnp.where(m, leaf, 0), mask, x)


def running_mean(mean: Any, new: Any, decay: Scalar, count: jax.Array, debias: bool = True) -> Any:
    """The exponential moving average ``mean`` after one more value, in the dtypes of ``mean``.

    ``debias`` divides by ``1 − decayⁿ``, so that the weights of all values sum to one from the
    first on: the same as ``mean + w (new − mean)`` with ``w = (1 − decay) / (1 − decayⁿ)``. Without
    it, the first mean (zeros) keeps its weight. A decay of 1 gives the sum.

    Args:
      count: number of values in ``mean``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.running_mean(jnp.array(1.0), jnp.array(3.0), 0.5, 1, debias=False).item()
      2.0
    """

    def leaf(a: jax.Array, x: jax.Array) -> jax.Array:
        rate = jnp.asarray(decay, a.dtype)
        w = 1 - rate
        if debias:
            mass = 1 - rate ** (count + 1).astype(a.dtype)
            w = w / jnp.where(mass > 0, mass, 1)
        total = rate == 1
        return jnp.where(total, 1, 1 - w) * a + jnp.where(total, 1, w) * jnp.asarray(x, a.dtype)

    return jax.tree.map(leaf, mean, new)


def zeros_like(x: Params) -> Params:
    """Zeros of the same shapes, dtypes and shardings; accepts ``ShapeDtypeStruct`` leaves.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.zeros_like(x)["a"].tolist()
      [0.0, 0.0]
    """
    # JAX takes the sharding of a traced array, but not that of a constant.
    return jax.tree.map(lambda leaf: meshes.placed_like(jnp.zeros_like(leaf), leaf), x)


def rows_like(x: Params, rows: int) -> Params:
    """Zeros of shapes ``(rows, *shape)`` and of the same dtypes and shardings.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.rows_like(x, 5)["a"].shape
      (5, 2)
    """
    wide = lambda leaf: jnp.broadcast_to(leaf[None], (rows, *leaf.shape))
    return jax.tree.map(wide, zeros_like(x))


def power_of_two(x: jax.Array) -> jax.Array:
    """A power of two near ``x > 0``, so that a division by it is exact; 1 for other ``x``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.power_of_two(jnp.array(5.0)).item()
      4.0
    """
    limits = jnp.finfo(x.dtype)
    usable = jnp.isfinite(x) & (x >= limits.tiny)
    kept = jnp.where(usable, jnp.minimum(x, limits.max / 4), 1)
    return jax.lax.reduce_precision(kept, limits.nexp, 0)


def nan_unless(sound: jax.Array, x: jax.Array) -> jax.Array:
    """``x``, NaN where not sound; no NaN arises before, so ``jax_debug_nans`` does not raise.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.tree.nan_unless(jnp.array(False), jnp.array(1.0)).item()
      nan
    """
    return x + 0 * jnp.where(sound, jnp.zeros((), x.dtype), jnp.inf)
