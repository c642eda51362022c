"""Second moments of one block, from the statistics of its layer or from a sampled leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def of_uses(
    uses: Sequence[layers.Use], kept: Factors, bases: Factors | None, reduce: bool
) -> Moments:
    """``A`` and ``G`` over all uses of a layer, and the squares in its bases.

    ``A`` is a mean over the uses, for each of the S independent maps.
    """
    (kept_a, kept_g), dtype = kept, kept[0].dtype
    total_a = jnp.zeros_like(kept_a)
    total_g = None if kept_g is None else jnp.zeros_like(kept_g)
    squares: Any = None
    if bases is not None:
        squares = jnp.zeros((*kept_a.shape[:2], bases[1].shape[1]), dtype)
    count, size = jnp.zeros((kept_a.shape[0], 1), dtype), None
    for use in uses:
        x, y = _rows(use, reduce)
        y = y.astype(dtype)
        used = jnp.repeat(jnp.asarray(use.slots, dtype), y.shape[0] // len(use.slots))
        count = count + used[:, None] * y.shape[1]
        if x is None:
            assert use.indices is not None
            rows = use.indices.reshape(y.shape[:2])
            stack = jnp.arange(rows.shape[0])[:, None]
            a = jnp.zeros_like(total_a).at[stack, rows].add(1)
        else:
            x = x.astype(dtype)
            if use.transposed and size is not None:
                # A transposed use exchanges inputs and sensitivities: rescale to the common units.
                ratio = jnp.sqrt(size / jnp.maximum(jnp.mean(x * x), jnp.finfo(dtype).tiny))
                x, y = x * ratio, y / jnp.where(ratio > 0, ratio, 1)
            a = _gram(x, kept_a.ndim == 3)
        if size is None:
            size = jnp.sum(kr.mean_trace(a)) / jnp.sum(used) / y.shape[1]
        total_a = total_a + a
        if kept_g is not None and total_g is not None:
            total_g = total_g + _gram(y, kept_g.ndim == 3)
        if bases is not None:
            turned = jnp.square(_in_basis(bases[1], y))
            if x is None:
                squares = squares.at[stack, rows].add(turned)
            else:
                inputs = jnp.square(_in_basis(bases[0], x))
                squares = squares + jnp.einsum("sma,smb->sab", inputs, turned, precision=HIGHEST)
    count = jnp.maximum(count, 1).reshape(-1, *(1,) * (total_a.ndim - 1))
    return Moments((total_a / count, total_g), squares)


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
