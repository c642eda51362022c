"""The randomised Nyström approximation ``A ≈ U Λ Uᵀ`` of a positive semi-definite operator.

``Y (ΩᵀY)⁺ Yᵀ`` from the products ``Y = A Ω`` with a random orthonormal Ω. It equals A on the span
of Ω and is at most A. With at least as many columns as the rank of A it is exact; otherwise its
error is a small multiple of the omitted eigenvalues.

Source: Frangella, Tropp and Udell (2021), algorithm 2.1; Tropp et al. (2017) for the shift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg import _lapack as lapack
from secondorder.linalg._svd import thin_svd
from secondorder.operators._dense import join, unravel
from secondorder.operators._lanczos import combine, coordinates
from secondorder.tree import Params, Scalar


class Sketch(NamedTuple):
    """``U Λ Uᵀ``.

    Attributes:
      vectors: ``U``, tree of ``(l, *shape)``, orthonormal along the leading axis.
      values: ``Λ``, ``(l,)``, descending, nonnegative.
    """

    vectors: Params
    values: jax.Array


def empty(like: Params, rank: int) -> Sketch:
    """A sketch of zeros; ``like`` may have ``ShapeDtypeStruct`` leaves."""
    size = min(rank, tree.size(like))
    vectors = tree.rows_like(tree.accumulator(tree.zeros_like(like)), size)
    return Sketch(vectors, jnp.zeros(size, tree.dtype(like)))


def sketched(mv: Callable[[Params], Params], like: Params, key: jax.Array, rank: int) -> Sketch:
    """The approximation of ``mv`` of at most the given rank, from ``rank`` products.

    Directions of negative curvature are left out. A non-finite product gives a sketch of zeros.
    """
    like = tree.zeros_like(tree.accumulator(like))
    size = min(rank, tree.size(like))
    draw = lambda j: join(_normal(jax.random.fold_in(key, j), like), 0)
    omega, _ = lapack.qr(jax.vmap(draw)(jnp.arange(size)).T)  # (n, l)
    image = lambda column: join(mv(tree.cast(unravel(column, like), like)), 0)
    y = jax.lax.map(image, omega.T).T
    # Shifted by rounding, so that the core has a root; the shift is subtracted at the end.
    shift = jnp.sqrt(float(y.shape[0])) * jnp.finfo(y.dtype).eps * jnp.linalg.norm(y)
    finite = jnp.isfinite(shift)
    y, shift = jnp.where(finite, y + shift * omega, 0), jnp.where(finite, shift, 0)
    core = _product(omega.T, y)
    values, turn = lapack.eigh(0.5 * (core + core.T))
    # Not a Cholesky root, as in the paper: an indefinite core has none.
    kept = values > 0.5 * shift
    root = turn * jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)[None]
    vectors, sizes, _ = thin_svd(_product(y, root))
    rows = jax.vmap(lambda column: unravel(column, like), in_axes=1)(vectors)
    return Sketch(tree.cast(rows, like), jnp.maximum(sizes**2 - shift, 0))


def preconditioned(sketch: Sketch, v: Params, damping: Scalar) -> Params:
    """``P⁻¹ v = (λ_l + μ) U (Λ + μ)⁻¹ Uᵀ v + (I − U Uᵀ) v``, μ the damping.

    Outside the span of U, the smallest eigenvalue ``λ_l`` is assumed. ``λ_l + μ`` is at least the
    rounding level of the largest eigenvalue, so that P stays positive definite if both vanish.
    """
    values = sketch.values
    floor = 100 * jnp.finfo(values.dtype).eps * values[0]
    least = jnp.maximum(values[-1] + damping, floor)
    level = jnp.maximum(values + damping, least)
    weights = jnp.where(level > 0, least / jnp.where(level > 0, level, 1), 1) - 1
    inside = combine(weights * coordinates(sketch.vectors, v), sketch.vectors)
    return jax.tree.map(lambda x, y: (x + y).astype(x.dtype), v, inside)


def _normal(key: jax.Array, like: Params) -> Params:
    """A tree of normal entries, with a key folded per leaf."""
    leaves, structure = jax.tree.flatten(like)
    draw: Any = lambda i, x: jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
    return jax.tree.unflatten(structure, [draw(i, x) for i, x in enumerate(leaves)])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
