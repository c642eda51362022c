"""Factorisations of stacks of matrices ``(N, b, b)``: eigenbases, and bases near by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

HIGHEST = jax.lax.Precision.HIGHEST


def one_by_one(factorise: Callable, *stacks: jax.Array) -> Any:
    """``factorise(*stacks)`` of stacks ``(N, …)``, on a CPU one after another, also under ``vmap``.

    On a CPU, batched LAPACK kernels share their threads with all other kernels, and with
    asynchronous dispatch they may deadlock (seen with JAX 0.10.2).
    """

    def singly(*stacks: jax.Array) -> Any:
        one = lambda parts: jax.tree.map(lambda x: x[0], factorise(*(x[None] for x in parts)))
        return jax.lax.map(one, stacks)

    def in_turn(*stacks: jax.Array) -> Any:
        if len(stacks[0]) == 1:
            return factorise(*stacks)
        return jax.lax.platform_dependent(*stacks, cpu=singly, default=factorise)

    @custom_vmap
    def run(*stacks: jax.Array) -> Any:
        return in_turn(*stacks)

    @run.def_vmap
    def _(lanes: int, batched: Any, *stacks: jax.Array) -> tuple[Any, Any]:
        pairs = zip(stacks, batched, strict=True)
        wide = [x if b else jnp.broadcast_to(x, (lanes, *x.shape)) for x, b in pairs]
        # The lanes are further matrices of the stack.
        found = one_by_one(factorise, *(x.reshape(-1, *x.shape[2:]) for x in wide))
        apart = jax.tree.map(lambda x: x.reshape(lanes, -1, *x.shape[1:]), found)
        return apart, jax.tree.map(lambda x: True, apart)

    @jax.custom_jvp
    def differentiable(*stacks: jax.Array) -> Any:
        return run(*stacks)

    differentiable.defjvp(lambda primals, tangents: jax.jvp(in_turn, primals, tangents))
    return differentiable(*stacks)


def eigenbasis(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues (descending, clipped at zero) and eigenvectors of ``(N, b, b)``."""
    values, vectors = one_by_one(jnp.linalg.eigh, gram)
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
    new, triangle = one_by_one(lambda x: tuple(jnp.linalg.qr(x)), image)
    own = jnp.abs(jnp.diagonal(triangle, axis1=1, axis2=2))
    unknown = own <= rounding(gram) * jnp.max(own, axis=1, keepdims=True)
    kept = lambda: jnp.where(unknown[:, None, :], basis, image)
    again = lambda: one_by_one(lambda x: jnp.linalg.qr(x)[0], kept())
    new = jax.lax.cond(jnp.any(unknown), again, lambda: new)
    return jnp.take_along_axis(new, jnp.argsort(order, axis=1)[:, None, :], axis=2)
