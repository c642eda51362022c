"""Factorisations of stacks of matrices ``(N, b, b)``: eigenbases, and bases near by."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder.linalg import _lapack as lapack

HIGHEST = jax.lax.Precision.HIGHEST


def eigenbasis(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues (descending, clipped at zero) and eigenvectors of ``(N, b, b)``."""
    values, vectors = jax.vmap(lapack.eigh)(gram)
    return jnp.maximum(values[:, ::-1], 0), vectors[:, :, ::-1]


def rounding(gram: jax.Array) -> float:
    """The rounding level of the eigenvalues of ``(N, b, b)``, relative to the largest."""
    return 10 * gram.shape[-1] * float(jnp.finfo(gram.dtype).eps)


def first_basis(gram: jax.Array, basis: jax.Array) -> jax.Array:
    """Eigenvectors, largest first; in the null space, those of a fixed form on the old basis.

    In the null space every basis consists of eigenvectors, and the solver's choice depends on
    rounding: a change of the last bit of the start would change it. Old columns in the null space
    are unchanged.
    """
    values, vectors = eigenbasis(gram)
    size, dtype = gram.shape[-1], gram.dtype
    null = values <= rounding(gram) * values[:, :1]
    both, eye = null[:, :, None] & null[:, None, :], jnp.eye(size, dtype=dtype)[None]
    # Convex weights, so that no two sums are equal: e₁ − e₄ and e₂ − e₃ stay distinct.
    weights = size / (size + jnp.arange(size, dtype=dtype))
    inside = jnp.matmul(basis.mT, vectors, precision=HIGHEST)
    form = jnp.matmul(inside.mT * weights[None, None], inside, precision=HIGHEST)
    _, turn = eigenbasis(jnp.where(both, form, (2 + weights)[None, None] * eye))
    return jnp.matmul(vectors, jnp.where(both, turn, eye), precision=HIGHEST)


def rayleigh(gram: jax.Array, basis: jax.Array) -> jax.Array:
    """``diag(Qᵀ G Q)``, ``(N, b)``: the Rayleigh quotients of the basis."""
    product = jnp.matmul(gram, basis, precision=HIGHEST)
    return jnp.maximum(jnp.sum(basis * product, axis=1), 0)


def off_diagonal(gram: jax.Array, basis: jax.Array) -> jax.Array:
    """``‖QᵀGQ − diag‖ / ‖G‖`` of each block, ``(N,)``: 0 for eigenvectors, and for ``G = 0``."""
    turned = jnp.matmul(basis.mT, jnp.matmul(gram, basis, precision=HIGHEST), precision=HIGHEST)
    return _ratio(jnp.where(jnp.eye(gram.shape[-1], dtype=bool)[None], 0, turned), gram)


def change(gram: jax.Array, inverse: jax.Array) -> jax.Array:
    """``‖G P G − G‖ / ‖G‖`` of each block, ``(N,)``: the change of G since ``P = G⁻¹``.

    Not ``P G − I``: if G is nearly singular, that is mostly rounding errors.
    """
    image = jnp.matmul(jnp.matmul(gram, inverse, precision=HIGHEST), gram, precision=HIGHEST)
    return _ratio(image - gram, gram)


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """``‖x‖ / ‖y‖`` of each block; 0 where y is 0."""
    size = jnp.max(jnp.abs(y), axis=(1, 2), keepdims=True)
    size = jnp.where(size > 0, size, 1)
    x, y = (jnp.sqrt(jnp.sum((z / size) ** 2, axis=(1, 2))) for z in (x, y))
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)


def next_basis(gram: jax.Array, basis: jax.Array) -> jax.Array:
    """One step of orthogonal iteration from a nearby basis: ``Q⁺ = qr(G Q)``.

    The iteration needs descending eigenvalues, so the columns are sorted for it; each new column
    takes the place of its old one, so averages in the old basis stay with their directions. A
    column whose image is at rounding level, relative to the columns before it, is only made
    orthogonal to them.
    """
    values = rayleigh(gram, basis)
    values = jnp.where(values > rounding(gram) * jnp.max(values, 1, keepdims=True), values, 0)
    order = jnp.argsort(-values, axis=1, stable=True)
    basis = jnp.take_along_axis(basis, order[:, None, :], axis=2)
    size = jnp.max(jnp.abs(gram), axis=(1, 2), keepdims=True)
    image = jnp.matmul(gram / jnp.where(size > 0, size, 1), basis, precision=HIGHEST)
    new, triangle = jax.vmap(lapack.qr)(image)
    own = jnp.abs(jnp.diagonal(triangle, axis1=1, axis2=2))
    unknown = own <= rounding(gram) * jnp.max(own, axis=1, keepdims=True)
    kept = lambda: jnp.where(unknown[:, None, :], basis, image)
    again = lambda: jax.vmap(lapack.qr)(kept())[0]
    new = jax.lax.cond(jnp.any(unknown), again, lambda: new)
    return jnp.take_along_axis(new, jnp.argsort(order, axis=1)[:, None, :], axis=2)
