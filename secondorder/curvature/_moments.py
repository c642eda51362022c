"""Second moments of one block, from the statistics of its layer or from a sampled leaf."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import layers
from secondorder.curvature._structures import Moments, sound
from secondorder.operators import _kronecker as kr
from secondorder.operators._eigenbases import first_basis, next_basis
from secondorder.operators._kronecker import Factors

HIGHEST = jax.lax.Precision.HIGHEST


def is_whole(block: kr.Block, axis: int, axes: Sequence[int], max_size: int) -> bool:
    """Whether the factor along an axis is a matrix; otherwise it is a diagonal."""
    looked_up = getattr(block, "kind", None) == "embedding" and axis == 0
    return len(axes) > 1 and axes[axis] <= max_size and not looked_up


def _gram(x: jax.Array, whole: bool) -> jax.Array:
    """``Σₘ xₘ xₘᵀ`` of ``(S, M, d)``: ``(S, d, d)``, or its diagonal."""
    if not whole:
        return jnp.sum(x * x, axis=1)
    return jax.lax.dot_general(x, x, (((1,), (1,)), ((0,), (0,))), precision=HIGHEST)


def of_leaf(v: jax.Array, kept: Factors, bases: Factors | None) -> Moments:
    """The Grams of a sample along the axes of a leaf ``(1, d₁, …, d_r)``."""
    squares = None if bases is None else kr.along_axes(kr.transposed(bases), v) ** 2
    return Moments(kr.grams(kept, v, v), squares)


def scaled(grams: Factors) -> Factors:
    """Grams along r axes, each of trace t, as factors whose product has trace t."""
    rank = len(grams)
    if rank == 1:
        return grams
    trace = kr.mean_trace(grams[0]) * grams[0].shape[1]
    scale = jnp.where(trace > 0, trace, 1) ** ((1 - rank) / rank)
    return tuple(g * scale.reshape(-1, *[1] * (g.ndim - 1)) for g in grams)


def _rows(use: layers.Use, reduce: bool) -> tuple[jax.Array | None, jax.Array]:
    """Inputs and sensitivities ``(S, M, ·)``, M the examples, or all positions of all examples."""
    x, y = use.inputs, use.sensitivities
    if reduce and x is not None:
        into, out = (jnp.sum, jnp.mean) if use.transposed else (jnp.mean, jnp.sum)
        x, y = into(x, axis=2, keepdims=True), out(y, axis=2, keepdims=True)
    flat = lambda z: z.reshape(z.shape[0], -1, z.shape[-1])
    return None if x is None else flat(x), flat(y)


class OfUse(NamedTuple):
    """One use of a layer: the mean Gram of its inputs, that of its sensitivities, their squares.

    Attributes:
      sizes: the traces of both, for each of the S independent maps.
    """

    a: jax.Array
    g: jax.Array | None
    squares: jax.Array | None
    sizes: tuple[jax.Array, jax.Array]


def of_uses(
    uses: Sequence[layers.Use], kept: Factors, bases: Factors | None, reduce: bool
) -> Moments:
    """``A`` and ``G`` over all uses of a layer, and the squares in its bases.

    With ``Aᵤ`` a mean over the positions of use u and ``Gᵤ`` a sum, both partial traces of
    ``A ⊗ G`` are those of ``Σᵤ Aᵤ ⊗ Gᵤ``, for each of the S independent maps:

        A = Σᵤ tr(Gᵤ) Aᵤ / Σᵤ tr(Gᵤ),   G = Σᵤ tr(Aᵤ) Gᵤ / tr(A)

    They depend on the product ``Aᵤ ⊗ Gᵤ`` alone: not on the units of a transposed use, which
    exchanges inputs and sensitivities, nor on how many examples share an input outside the batch.
    """
    found = [_of_use(use, kept, bases, reduce) for use in uses]
    squares = _total([u.squares for u in found])
    if len(found) == 1:
        return Moments((found[0].a, found[0].g), squares)
    size_a, size_g = (jnp.stack(sizes) for sizes in zip(*(u.sizes for u in found), strict=True))
    total = jnp.sum(size_g, axis=0)
    share = jnp.where(total > 0, size_g / jnp.where(total > 0, total, 1), 1 / len(found))
    size = jnp.sum(share * size_a, axis=0)
    ratio = size_a / jnp.where(size > 0, size, 1)
    a = _total([_times(w, u.a) for w, u in zip(share, found, strict=True)])
    g = _total([_times(w, u.g) for w, u in zip(ratio, found, strict=True)])
    return Moments((a, g), squares)


def _times(number: jax.Array, factor: jax.Array | None) -> jax.Array | None:
    """A number times a matrix or a diagonal, for each of the S maps."""
    return None if factor is None else factor * number.reshape(-1, *(1,) * (factor.ndim - 1))


def _total(parts: Sequence[jax.Array | None]) -> jax.Array | None:
    """The sum of those that there are."""
    found = [part for part in parts if part is not None]
    return functools.reduce(jnp.add, found) if found else None


def _of_use(use: layers.Use, kept: Factors, bases: Factors | None, reduce: bool) -> OfUse:
    (kept_a, kept_g), dtype = kept, kept[0].dtype
    x, y = _rows(use, reduce)
    y = y.astype(dtype)
    if x is None:
        assert use.indices is not None
        rows = use.indices.reshape(y.shape[:2])
        stack = jnp.arange(rows.shape[0])[:, None]
        a = jnp.zeros_like(kept_a).at[stack, rows].add(1)
    else:
        x = x.astype(dtype)
        a = _gram(x, kept_a.ndim == 3)
    g = None if kept_g is None else _gram(y, kept_g.ndim == 3)
    squares = None
    if bases is not None:
        turned = jnp.square(_in_basis(bases[1], y))
        if x is None:
            zeros = jnp.zeros((*kept_a.shape[:2], bases[1].shape[1]), dtype)
            squares = zeros.at[stack, rows].add(turned)
        else:
            inputs = jnp.square(_in_basis(bases[0], x))
            squares = jnp.einsum("sma,smb->sab", inputs, turned, precision=HIGHEST)
    a = a / max(y.shape[1], 1)
    return OfUse(a, g, squares, (kr.mean_trace(a) * a.shape[1], jnp.sum(y * y, axis=(1, 2))))


def _in_basis(basis: jax.Array, x: jax.Array) -> jax.Array:
    """``Qᵀ x`` for each of ``(S, M, d)``."""
    return x * basis[:, None] if basis.ndim == 2 else jnp.matmul(x, basis, precision=HIGHEST)


def basis(factor: jax.Array, old: jax.Array) -> jax.Array:
    """The eigenvectors of a factor: exact at first, then by one step of orthogonal iteration.

    From a nearby basis, an orthogonal iteration takes a fraction of the time of ``eigh``, and does
    not rotate eigenvectors of nearly equal eigenvalues, which would invalidate the second moments
    along them. From the coordinate basis (the start, or a factor that was zero until now) it would
    take many iterations.
    """
    if factor.ndim == 2:
        return old
    size = jnp.max(jnp.abs(factor), axis=(1, 2), keepdims=True)
    factor = factor / jnp.where(size > 0, size, 1)
    # The fourth powers of a unit vector sum to one where it is a coordinate, and else to less.
    coordinates = jnp.max(jnp.sum(old**4, axis=(1, 2))) > 0.999 * factor.shape[-1]
    exact, nearer = lambda: first_basis(factor, old), lambda: next_basis(factor, old)
    return sound(jax.lax.cond(coordinates, exact, nearer), old)


def turned(squares: jax.Array | None, old: Factors, new: Factors) -> jax.Array:
    """The diagonal of ``Q diag(s) Qᵀ`` in a new basis: an estimate of the second moments there."""
    assert squares is not None

    def between(a: jax.Array, b: jax.Array) -> jax.Array:
        if a.ndim == 2:
            return a
        return jnp.square(jnp.matmul(b.mT, a, precision=HIGHEST))

    return kr.along_axes(tuple(map(between, old, new)), squares)
