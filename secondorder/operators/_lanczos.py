"""The Lanczos process: an orthonormal basis of a Krylov space, with a tridiagonal projection.

``Q`` spans ``(v, Bv, B²v, …)``, and ``QᵀBQ = T``. The basis is fully reorthogonalised: without it,
sixty steps in float32 give copies of single eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg import _lapack as lapack
from secondorder.tree import Params


class Basis(NamedTuple):
    """A Krylov space.

    Attributes:
      vectors: tree of ``(max_steps, *shape)``, orthonormal; unused rows are zero.
      diagonal, off: of ``T``, ``(max_steps,)`` each; ``off[j]`` joins j and j + 1.
      size: number of vectors in use.
      norm: norm of the first vector before normalisation.
    """

    vectors: Params
    diagonal: jax.Array
    off: jax.Array
    size: jax.Array
    norm: jax.Array


def start(vector: Params, max_steps: int) -> Basis:
    """The basis of one normalised vector, with room for ``max_steps`` vectors."""
    norm = tree.norm(vector)
    first = tree.scale(1 / jnp.where(norm > 0, norm, 1), vector)
    vectors = jax.tree.map(
        lambda rows, x: rows.at[0].set(x), tree.rows_like(first, max_steps), first
    )
    zeros = jnp.zeros(max_steps, norm.dtype)
    return Basis(vectors, zeros, zeros, jnp.ones((), jnp.int32), norm)


def expand(mv: Callable[[Params], Params], basis: Basis) -> tuple[Basis, Params, jax.Array]:
    """One product: the last diagonal entry of ``T``, and the image orthogonal to the basis.

    Returns:
      The basis with its last diagonal entry set; the part of the image orthogonal to it, not
      normalised; the norm of this part, zero if the space is invariant to rounding.
    """
    j = basis.size
    last = jax.tree.map(lambda rows: rows[j - 1], basis.vectors)
    image = mv(last)
    scale, bend = tree.norm(image), tree.vdot(last, image)
    image = orthogonal(image, basis.vectors)
    rest = tree.norm(image)
    rest = jnp.where(rest > 10 * jnp.finfo(rest.dtype).eps * scale, rest, 0)
    return basis._replace(diagonal=basis.diagonal.at[j - 1].set(bend)), image, rest


def append(basis: Basis, vector: Params, off: jax.Array, norm: jax.Array | None = None) -> Basis:
    """The basis with one more vector: dropped without room for it, zero for a norm of zero.

    Args:
      basis: the basis.
      vector: a vector orthogonal to it.
      off: the off-diagonal entry of ``T``.
      norm: norm of the vector; ``None`` if it equals ``off``.
    """
    norm = off if norm is None else norm
    unit = tree.scale(jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0), vector)
    j = basis.size
    return basis._replace(
        vectors=jax.tree.map(lambda rows, x: rows.at[j].set(x, mode="drop"), basis.vectors, unit),
        off=basis.off.at[j - 1].set(off),
        size=j + 1,
    )


def orthogonal(x: Params, vectors: Params) -> Params:
    """``x − Q Qᵀ x`` for orthonormal or zero rows of ``vectors``."""
    for _ in range(2):  # twice, against cancellation (Parlett 1998, 6.9)
        part = combine(coordinates(vectors, x), vectors)
        x = jax.tree.map(lambda y, p: y - p, x, part)
    return x


def coordinates(vectors: Params, x: Params) -> jax.Array:
    """``vectorsⱼ · x`` for all j."""
    dot = lambda rows, y: jnp.sum(rows * y[None], axis=tuple(range(1, rows.ndim)))
    dots = jax.tree.leaves(jax.tree.map(dot, vectors, x))
    return jnp.sum(jnp.stack(dots), axis=0)


def combine(coefficients: jax.Array, vectors: Params) -> Params:
    """``Σⱼ coefficientsⱼ vectorsⱼ``."""

    def leaf(rows):
        wide = coefficients.reshape(-1, *(1,) * (rows.ndim - 1))
        return jnp.sum(wide.astype(rows.dtype) * rows, axis=0)

    return jax.tree.map(leaf, vectors)


def eigen(basis: Basis, used: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors of ``T``, with those of its first ``used`` rows first."""
    index = jnp.arange(basis.diagonal.size)
    diagonal = jnp.where(index < used, basis.diagonal, 0)
    off = jnp.where(index[:-1] < used - 1, basis.off[:-1], 0)
    size = jnp.maximum(jnp.max(jnp.abs(diagonal)), jnp.max(jnp.abs(off), initial=0))
    size = jnp.where(size > 0, size, 1)  # in this unit nothing under- or overflows
    # By Gershgorin, 4 is above every eigenvalue of the used rows, so unused rows come last.
    diagonal = jnp.where(index < used, diagonal / size, 4)
    off = off / size
    w, v = lapack.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))
    return size * w, v
