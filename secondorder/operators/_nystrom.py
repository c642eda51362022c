"""The randomised Nyström approximation ``A ≈ U Λ Uᵀ`` of a positive semi-definite operator.

From the products ``Y = A Ω`` with a random orthonormal Ω alone, ``Y (ΩᵀY)⁺ Yᵀ``: it agrees with A
on Ω and lies below it. It is exact where as many columns as the rank of A are drawn; else its error
is that of the eigenvalues which are left out, but for a small factor.

Source: Frangella, Tropp and Udell (2021), algorithm 2.1; Tropp et al. (2017) for the shift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg._svd import thin_svd
from secondorder.operators._dense import join, unravel
from secondorder.operators._lanczos import combine, coordinates
from secondorder.tree import Params, Scalar


class Sketch(NamedTuple):
    """``U Λ Uᵀ``.

    Attributes:
      vectors: ``U``, tree of ``(l, *shape)``, orthonormal along the leading axis.
      values: ``Λ``, ``(l,)``, falling, not negative.
    """

    vectors: Params
    values: jax.Array


def empty(like: Params, rank: int) -> Sketch:
    """Room for a sketch; ``like`` may hold ``ShapeDtypeStruct`` leaves."""
    size = min(rank, tree.size(like))
    vectors = tree.rows_like(tree.accumulator(tree.zeros_like(like)), size)
    return Sketch(vectors, jnp.zeros(size, tree.dtype(like)))


def sketched(mv: Callable[[Params], Params], like: Params, key: jax.Array, rank: int) -> Sketch:
    """The approximation of ``mv`` of at most this rank, by as many products.

    Directions along which ``mv`` bends down are left out. What is not finite gives zeros.
    """
    like = tree.zeros_like(tree.accumulator(like))
    size = min(rank, tree.size(like))
    draw = lambda j: join(_normal(jax.random.fold_in(key, j), like), 0)
    omega, _ = jnp.linalg.qr(jax.vmap(draw)(jnp.arange(size)).T)  # (n, l)
    image = lambda column: join(mv(tree.cast(unravel(column, like), like)), 0)
    y = jax.lax.map(image, omega.T).T
    # Shifted by rounding, so that the core has a root; the shift is taken off again at the end.
    shift = jnp.sqrt(float(y.shape[0])) * jnp.finfo(y.dtype).eps * jnp.linalg.norm(y)
    finite = jnp.isfinite(shift)
    y, shift = jnp.where(finite, y + shift * omega, 0), jnp.where(finite, shift, 0)
    core = _product(omega.T, y)
    values, turn = jnp.linalg.eigh(0.5 * (core + core.T))
    # Not Cholesky's root, as in the paper: of an indefinite core there is none.
    kept = values > 0.5 * shift
    root = turn * jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)[None]
    vectors, sizes, _ = thin_svd(_product(y, root))
    rows = jax.vmap(lambda column: unravel(column, like), in_axes=1)(vectors)
    return Sketch(tree.cast(rows, like), jnp.maximum(sizes**2 - shift, 0))


def preconditioned(sketch: Sketch, v: Params, damping: Scalar) -> Params:
    """``P⁻¹ v = (λ_l + μ) U (Λ + μ)⁻¹ Uᵀ v + (I − U Uᵀ) v``, μ the damping.

    What U does not hold is taken for the smallest eigenvalue found. Where that and μ vanish, it is
    raised to what rounding of the largest leaves of it, so that P stays positive definite.
    """
    values = sketch.values
    floor = 100 * jnp.finfo(values.dtype).eps * values[0]
    least = jnp.maximum(values[-1] + damping, floor)
    level = jnp.maximum(values + damping, least)
    weights = jnp.where(level > 0, least / jnp.where(level > 0, level, 1), 1) - 1
    inside = combine(weights * coordinates(sketch.vectors, v), sketch.vectors)
    return jax.tree.map(lambda x, y: (x + y).astype(x.dtype), v, inside)


def _normal(key: jax.Array, like: Params) -> Params:
    """Normal entries; a key is folded per leaf."""
    leaves, structure = jax.tree.flatten(like)
    draw: Any = lambda i, x: jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
    return jax.tree.unflatten(structure, [draw(i, x) for i, x in enumerate(leaves)])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
