"""Random trees, and keys as plain arrays."""

from __future__ import annotations

from collections.abc import Callable

import jax

from secondorder import meshes
from secondorder.tree._dtypes import accumulator
from secondorder.tree._types import Params


def folded(data: jax.Array, count: jax.Array) -> jax.Array:
    """The key for a count, from key data (a plain array, so that a state can be saved).

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> data = jax.random.key_data(jax.random.key(0))
      >>> bool(jnp.all(so.tree.folded(data, 1) == so.tree.folded(data, 1)))
      True
    """
    return jax.random.fold_in(jax.random.wrap_key_data(data), count)


def random_signs(key: jax.Array, like: Params) -> Params:
    """±1 with equal odds, shaped like a tree, in at least float32; a key is folded per leaf.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> so.tree.random_signs(jax.random.key(0), jnp.zeros((2, 3))).shape
      (2, 3)
    """
    return _drawn(jax.random.rademacher, key, like)


def random_normal(key: jax.Array, like: Params) -> Params:
    """Standard normal numbers, shaped like a tree, in at least float32; a key per leaf.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> so.tree.random_normal(jax.random.key(0), jnp.zeros((2, 3))).shape
      (2, 3)
    """
    return _drawn(jax.random.normal, key, like)


def _drawn(draw: Callable, key: jax.Array, like: Params) -> Params:
    leaves, structure = jax.tree.flatten(accumulator(like))

    def one(i: int, leaf: jax.Array) -> jax.Array:
        return meshes.placed_like(draw(jax.random.fold_in(key, i), leaf.shape, leaf.dtype), leaf)

    return jax.tree.unflatten(structure, [one(i, leaf) for i, leaf in enumerate(leaves)])
