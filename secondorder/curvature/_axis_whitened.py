"""Grams along each axis of samples whitened along the others: KL-Shampoo and KL-SOAP."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder import settings
from secondorder.curvature._axis_basis import later_squares, squared_roots
from secondorder.curvature._axis_grams import new_bases, started, without_grams
from secondorder.curvature._samples import Sample
from secondorder.curvature._structures import Averages, Frame, Moments, Structure, basis_drift
from secondorder.operators import _kronecker as kr
from secondorder.operators._axes import Axes, CutLeaf
from secondorder.operators._base import Operator
from secondorder.operators._kronecker import Factors, KroneckerEigen
from secondorder.tree import Params


@settings.checked()
def axis_whitened(axes: Axes | None = None, *, squares: bool = False) -> Structure:
    """``⊗ᵢ Qᵢ diag(Dᵢ)^½ Qᵢᵀ``, each factor from samples that all others whiten.

    The Gram of axis i is ``E[v̂ v̂ᵀ]`` with ``v̂ = (⊗_{j≠i} diag(Dⱼ)^-½ Qⱼᵀ) v``, and
    ``Dᵢ = E[diag(Qᵢᵀ v̂ v̂ᵀ Qᵢ)]``, both means over the other axes and averaged at every sample: the
    Kronecker product nearest to ``E[v vᵀ]`` in the Kullback-Leibler divergence solves these
    equations. ``Qᵢ`` are eigenvectors of the Grams, computed as in :func:`axis_basis`. The first
    sample with a gradient sets ``Dᵢ = E[v²]^{1/k}``, for k axes with a Gram.

    Args:
      axes: rule for the Grams of a leaf.
      squares: True for a diagonal of squares in this basis, as in :func:`axis_basis`, in place of
        ``⊗ᵢ Dᵢ``.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_whitened(), decay=0.9)

    Source: Lin et al. (2025).
    """
    axes = Axes() if axes is None else axes
    squared = (lambda block: True) if squares else without_grams
    start = started(axes, squared)

    def init(params: Params) -> tuple[Averages, Frame]:
        averages, frame = start(params)
        zeros = lambda x: None if x is None else jnp.zeros((*x.shape[:2], 1), x.dtype)
        return tuple(m._replace(values=tuple(map(zeros, m.factors))) for m in averages), frame

    def measure(sample: Sample, averages: Averages, frame: Frame) -> tuple[Moments, ...]:
        v, w = map(jax.tree.leaves, sample)
        leaf = functools.partial(_whitened, squared)
        return tuple(map(leaf, axes.blocks(sample[0]), v, w, averages, frame))

    def operator(like: Params, averages: Averages, bases: Frame) -> Operator:
        def entries(block: CutLeaf, mean: Moments) -> jax.Array:
            if mean.squares is not None:
                return squared_roots(mean)
            roots = [None if d is None else jnp.sqrt(_above_rounding(d)) for d in _values(mean)]
            return kr.outer(tuple(roots), (block.pieces, *block.sizes))

        blocks = axes.blocks(like)
        return KroneckerEigen(blocks, bases, tuple(map(entries, blocks, averages)))

    return Structure(
        init, measure, operator, new_bases(axes), basis_drift, behind=True, join=later_squares
    )


def _whitened(
    squares: Callable[[CutLeaf], bool],
    block: CutLeaf,
    v: jax.Array,
    w: jax.Array,
    mean: Moments,
    basis: Factors,
) -> Moments:
    """The moments of one sample: along each axis, of the sample whitened along the others."""
    pair = lambda fn, v, w: (x := fn(v), x if w is v else fn(w))  # most samples are twice the same
    v, w = pair(lambda x: block.join([x]), v, w)
    v, w = pair(lambda x: kr.along_axes(kr.transposed(basis), x), v, w)
    kept = v * w if squares(block) else None
    eigenvalues = _values(mean)
    old = [d for d in eigenvalues if d is not None]
    if not old:
        return mean._replace(squares=kept)
    lengths = [(~block.padding(axis)).sum(1) for axis in range(len(block.shape))]
    count = math.prod(lengths)
    inside = tuple(range(1, v.ndim))
    # The squares are of the size of 1, also where those of the sample underflow.
    size = jnp.maximum(jnp.max(jnp.abs(v), inside), jnp.max(jnp.abs(w), inside))
    unit = jnp.where(size > 0, size, 1)
    wide = unit.reshape(-1, *[1] * len(inside))
    mean_square = jnp.maximum(jnp.sum((v / wide) * (w / wide), inside), 0) / count
    first = (jnp.sqrt(mean_square) * unit) ** (2 / len(old))
    known = functools.reduce(jnp.logical_and, [jnp.max(d, axis=1) > 0 for d in old])[:, None]
    now = lambda d: jnp.where(known, _above_rounding(d), first[:, None])
    inverse = lambda x: jnp.where(x > 0, 1 / jnp.sqrt(jnp.where(x > 0, x, 1)), 0)
    scales = tuple(None if d is None else inverse(now(d)) for d in eigenvalues)
    factors, values = [], []
    for axis, q in enumerate(basis):
        if q is None:
            factors.append(None)
            values.append(None)
            continue
        only = lambda x, axis=axis: tuple(x if i == axis else None for i in range(len(basis)))
        others = tuple(None if i == axis else x for i, x in enumerate(scales))
        share = (count / lengths[axis])[:, None]
        x, y = pair(lambda x, others=others: kr.along_axes(others, x), v, w)
        diagonal = kr.grams(only(scales[axis]), x, y)[axis] / share
        values.append(jnp.where(known, jnp.maximum(diagonal, 0), first[:, None])[..., None])
        x, y = pair(lambda x, own=only(q): kr.along_axes(own, x), x, y)
        factors.append(kr.grams(only(q), x, y)[axis] / share[..., None])
    return Moments(tuple(factors), kept, values=tuple(values))


def _values(mean: Moments) -> list[jax.Array | None]:
    """The eigenvalues of each factor, ``(N, b)``."""
    return [None if d is None else d[..., 0] for d in mean.values or ()]


def _above_rounding(values: jax.Array) -> jax.Array:
    """Eigenvalues ``(N, b)``; those at the rounding level of the largest are set to it."""
    peak = jnp.max(values, axis=1, keepdims=True)
    return jnp.where(values > float(jnp.finfo(values.dtype).eps) * peak, values, peak)
