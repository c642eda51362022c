"""Sums over all leaves.

They run in at least float32, whatever the dtype of the leaves: a dot product of bfloat16 gradients
keeps its digits. ``optax.tree.vdot`` is not used because it ravels each leaf, which explicitly
sharded arrays refuse.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import jax
import jax.numpy as jnp

from secondorder.tree._dtypes import dtype, joined
from secondorder.tree._types import Params

MANY = 4096  # entries; larger leaves have kernels of their own


def size(tree: Params) -> int:
    """The dimension of the space: the number of scalars in the tree.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.size(x)
      3
    """
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def vdot(a: Params, b: Params) -> jax.Array:
    """``Σ aᵢ bᵢ`` over all leaves, in at least float32.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.vdot(x, x).item()
      9.0
    """
    out = dtype(a)

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        acc = joined(jnp.float32, x.dtype, y.dtype)
        return jnp.sum(x.astype(acc) * y.astype(acc)).astype(out)

    return sum((product(x, y) for x, y in _few(out, a, b)), jnp.zeros((), out))


def total(x: Params) -> jax.Array:
    """``Σ xᵢ`` over all leaves, in at least float32.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.total(x).item()
      1.0
    """
    out = dtype(x)
    return sum((jnp.sum(leaf.astype(out)) for (leaf,) in _few(out, x)), jnp.zeros((), out))


def norm(a: Params) -> jax.Array:
    """``√(Σ aᵢ²)``, scaled by the largest entry so that it neither overflows nor underflows.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.norm(x).item()
      3.0
    """
    peak = max_abs(a)
    unit = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
    scaled = jax.tree.map(lambda x: jnp.asarray(x, dtype(x)) / unit.astype(dtype(x)), a)
    return unit * jnp.sqrt(vdot(scaled, scaled)).astype(unit.dtype)


def max_abs(a: Params) -> jax.Array:
    """The largest entry in magnitude; 0 for an empty tree, NaN if an entry is NaN.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.max_abs(x).item()
      2.0
    """
    out = dtype(a)
    peaks = [jnp.max(jnp.abs(x)).astype(out) for (x,) in _few(out, a) if x.size]
    return jnp.max(jnp.stack(peaks)) if peaks else jnp.zeros((), out)


def all_finite(x: Params) -> jax.Array:
    """Whether all entries are finite.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.all_finite(x).item()
      True
    """
    # Zero times a non-finite number is NaN, and a sum is faster than a conjunction; one sum for all
    # leaves of a kind, since each costs a kernel or two.
    alike: dict[Hashable, jax.Array] = {}
    for (leaf,) in _few(dtype(x), x):
        kind = jax.typeof(leaf)
        alike[kind] = alike.get(kind, 0) + 0 * leaf
    sums = [jnp.isfinite(jnp.sum(leaf)) for leaf in alike.values()]
    return jnp.all(jnp.stack(sums)) if sums else jnp.asarray(True)


def _few(out: jnp.dtype, *trees: Params) -> list[tuple[jax.Array, ...]]:
    """Rows of corresponding leaves, for sums; small leaves are joined in the dtype ``out``.

    A reduction is two or three kernels, each compiled and launched: a network of twelve layers has
    two dozen leaves, two thirds of them small. Explicitly sharded leaves stay where they are.
    """
    rows = [tuple(map(jnp.asarray, row)) for row in zip(*map(jax.tree.leaves, trees), strict=True)]
    apart = lambda x: x.size >= MANY or not jax.typeof(x).sharding.mesh.empty
    large = [row for row in rows if any(map(apart, row))]
    small = [row for row in rows if not any(map(apart, row))]
    if len(small) < 2:
        return rows
    return [
        *large,
        tuple(
            jnp.concatenate([x.ravel().astype(out) for x in c]) for c in zip(*small, strict=True)
        ),
    ]
