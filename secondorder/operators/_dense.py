"""Conversion of operators and trees to matrices and back; only this module ravels parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import meshes, tree
from secondorder.tree import Params


def ravel(x: Params) -> jax.Array:
    """The entries of a tree as one vector, in at least float32."""
    return join(x, 0)


def join(x: Any, leading: int) -> jax.Array:
    """Leaves of shape ``(*lead, *shape)`` joined to one array ``(*lead, Σ sizes)``, in ≥ float32.

    Explicitly sharded leaves are gathered here: dense algebra is the same on every device.

    Args:
      x: a tree of arrays with ``leading`` common leading axes.
      leading: how many axes to keep.
    """
    out = tree.dtype(x)
    leaves = meshes.gathered_leaves([jnp.asarray(leaf, out) for leaf in jax.tree.leaves(x)])
    if not leaves:
        return jnp.zeros((0,) * (leading + 1), out)
    flat = [leaf.reshape(*leaf.shape[:leading], -1) for leaf in leaves]
    return jnp.concatenate(flat, axis=leading)


def unravel(vector: jax.Array, like: Params) -> Params:
    """A vector as a tree shaped and sharded like ``like``, in the dtype of the vector."""
    leaves, structure = jax.tree.flatten(like)
    sizes = [math.prod(jnp.shape(leaf)) for leaf in leaves]
    offsets = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [
        meshes.placed_like(vector[start : start + size].reshape(jnp.shape(leaf)), leaf)
        for start, size, leaf in zip(offsets, sizes, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def basis_vector(index: jax.Array, like: Params) -> Params:
    """The ``index``-th unit vector of the space of ``like``, built leaf by leaf."""
    leaves, structure = jax.tree.flatten(like)
    parts, offset = [], 0
    for leaf in leaves:
        shape = jnp.shape(leaf)
        hit = jnp.arange(math.prod(shape)) == index - offset
        parts.append(meshes.placed_like(hit.reshape(shape).astype(tree.leaf_dtype(leaf)), leaf))
        offset += hit.size
    return jax.tree.unflatten(structure, parts)


def over_basis(fn: Callable, like: Params, chunk_size: int | None = None) -> Any:
    """``fn`` of every unit vector of the space of ``like``, stacked along a new leading axis.

    ``chunk_size`` unit vectors at a time (``None``: all at once) bound the memory of intermediate
    values. A callback without a ``vmap`` rule gets one unit vector at a time.
    """
    indices = jnp.arange(tree.size(like))
    column = lambda i: fn(basis_vector(i, like))
    try:
        if chunk_size is None:
            return jax.vmap(column)(indices)
        return jax.lax.map(column, indices, batch_size=chunk_size)
    except NotImplementedError:
        return jax.lax.map(column, indices)


def dense(op: Any, like: Params) -> jax.Array:
    """The matrix of a symmetric operator, ``(n, n)``, in the order of ``jax.tree.leaves(like)``.

    Args:
      op: an operator with ``mv``; its method ``matrix(like)`` is used if it has one.
      like: the parameters, for shapes and dtypes.

    Returns:
      An array of at least float32.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: p["a"] * p["b"]
      >>> p = {"a": jnp.array(1.0), "b": jnp.array(2.0)}
      >>> so.dense(so.hessian(f, p), p).tolist()
      [[0.0, 1.0], [1.0, 0.0]]
    """
    return op.matrix(like)


def matrix_of_products(mv: Callable[[Params], Params], like: Params) -> jax.Array:
    """The matrix of ``mv`` from its products with all unit vectors, symmetrised."""
    rows = join(over_basis(mv, like), 1)
    return 0.5 * (rows + rows.T)
