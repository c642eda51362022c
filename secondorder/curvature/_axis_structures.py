"""Structures with Grams along the axes of each leaf: of Shampoo and SOAP."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.curvature._samples import Sample
from secondorder.curvature._structures import Moments, Now, Structure, basis_drift, farthest, sound
from secondorder.operators import _eigenbases as eb
from secondorder.operators import _kronecker as kr
from secondorder.operators._axes import Axes, CutLeaf
from secondorder.operators._base import Operator
from secondorder.operators._kronecker import Factors, Kronecker, KroneckerEigen
from secondorder.tree import Params, Scalar


def _start(axes: Axes, squares: Callable[[CutLeaf], bool]) -> Callable:
    """``init`` of a structure along the axes: zeros, and identities as the frame."""

    def leaf(block: CutLeaf, x: Any) -> tuple[Moments, Factors]:
        dtype = tree.accumulation_dtype(tree.leaf_dtype(x))
        factors = block.square(lambda n, b: jnp.zeros((n, b, b), dtype))
        eyes = block.square(lambda n, b: jnp.tile(jnp.eye(b, dtype=dtype), (n, 1, 1)))
        if not squares(block):
            return Moments(factors, None), eyes
        if not any(block.factored):
            return Moments(factors, jnp.zeros_like(x, dtype)[None]), eyes  # sharded like the leaf
        return Moments(factors, jnp.zeros((block.pieces, *block.sizes), dtype)), eyes

    return lambda params: _two(map(leaf, axes.blocks(params), jax.tree.leaves(params)))


def _measure(axes: Axes, squares: Callable[[CutLeaf], bool]) -> Callable:
    """``measure`` of a structure along the axes; squares in the basis of the frame, if any."""

    def leaf(block: CutLeaf, v: jax.Array, w: jax.Array, frame: Factors) -> Moments:
        v, w = block.join([v]), block.join([w])
        factors = kr.grams(frame, v, w)
        if not squares(block):
            return Moments(factors, None)
        qt = kr.transposed(frame)
        return Moments(factors, kr.along_axes(qt, v) * kr.along_axes(qt, w))

    def measure(sample: Sample, averages: Any, frame: Sequence[Factors]) -> tuple[Moments, ...]:
        v, w = map(jax.tree.leaves, sample)
        return tuple(map(leaf, axes.blocks(sample[0]), v, w, frame))

    return measure


def _two(pairs: Iterable[tuple[Any, Any]]) -> tuple[tuple, tuple]:
    """Two tuples from an iterable of pairs."""
    pairs = tuple(pairs)
    return tuple(first for first, _ in pairs), tuple(second for _, second in pairs)


@settings.checked()
def axis_basis(
    axes: Axes | None = None, *, recount: bool = False, current_gradient: bool = False
) -> Structure:
    """A diagonal in the eigenbasis of the Grams: ``(⊗Qᵢ) diag(√E[v'∘v']) (⊗Qᵢ)ᵀ``, ``v' = ⊗Qᵢᵀ v``.

    The squares are averaged in the basis, at every sample. The basis comes from ``eigh`` of the
    Grams at first, and from one step of orthogonal iteration at each later refresh. A step uses the
    basis before its own gradient, since a basis from this gradient would fit it too well. Leaves
    without Grams keep their coordinates as the basis, as in RMSProp.

    Args:
      axes: rule for the Grams of a leaf.
      recount: True to count the squares of the first sample, in its own basis. False to start the
        squares at the second sample; the first step then has neither basis nor squares.
      current_gradient: True for steps and squares in the basis that includes the present sample,
        where it is refreshed at this step.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_basis(), decay=0.9)

    Source: Vyas et al. (2024), algorithms 3 and 4.
    """
    axes = Axes() if axes is None else axes

    def operator(like: Params, averages: Any, bases: Any) -> Operator:
        return KroneckerEigen(axes.blocks(like), bases, tuple(map(_roots, averages)))

    return Structure(
        _start(axes, lambda block: True),
        _measure(axes, lambda block: True),
        operator,
        _new_bases(axes),
        basis_drift,
        behind=not current_gradient,
        recount="always" if current_gradient else "first" if recount else "never",
        join=None if recount else _later_squares,
    )


def _later_squares(averages: Any, later: Any) -> Any:
    """The averages, with squares that start at the second sample: the first has no basis yet."""
    pairs = zip(averages, later, strict=True)
    return tuple(mean._replace(squares=less.squares) for mean, less in pairs)


def _new_bases(axes: Axes) -> Callable:
    """``refresh`` of a structure of eigenbases; the averages stay as they are."""

    def refresh(like: Params, averages: Any, bases: Any, now: Now) -> tuple[Any, Any]:
        def basis(gram: jax.Array | None, q: jax.Array | None) -> jax.Array | None:
            if gram is None or q is None:
                return None
            return sound(jax.lax.cond(now.first, eb.first_basis, eb.next_basis, gram, q), q)

        def leaf(block: CutLeaf, mean: Moments, old: Factors) -> Factors:
            return tuple(map(basis, block.separated(mean.factors), old))

        return averages, tuple(map(leaf, axes.blocks(like), averages, bases))

    return refresh


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
    squared = (lambda block: True) if squares else _without_grams
    start = _start(axes, squared)

    def init(params: Params) -> tuple[Any, Any]:
        averages, frame = start(params)
        zeros = lambda x: None if x is None else jnp.zeros((*x.shape[:2], 1), x.dtype)
        return tuple(m._replace(values=tuple(map(zeros, m.factors))) for m in averages), frame

    def measure(sample: Sample, averages: Any, frame: Sequence[Factors]) -> tuple[Moments, ...]:
        v, w = map(jax.tree.leaves, sample)
        leaf = functools.partial(_whitened, squared)
        return tuple(map(leaf, axes.blocks(sample[0]), v, w, averages, frame))

    def operator(like: Params, averages: Any, bases: Any) -> Operator:
        def entries(block: CutLeaf, mean: Moments) -> jax.Array:
            if mean.squares is not None:
                return _roots(mean)
            roots = [None if d is None else jnp.sqrt(_above_rounding(d)) for d in _values(mean)]
            return kr.outer(tuple(roots), (block.pieces, *block.sizes))

        blocks = axes.blocks(like)
        return KroneckerEigen(blocks, bases, tuple(map(entries, blocks, averages)))

    return Structure(
        init, measure, operator, _new_bases(axes), basis_drift, behind=True, join=_later_squares
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


def _roots(mean: Moments) -> jax.Array:
    """``√E[v'∘v']``; entries at the rounding level of their block are set to its largest entry.

    A rotated gradient has rounding errors in place of zeros. Division by their size would give
    full steps in random directions.
    """
    squares: Any = mean.squares
    roots = jnp.sqrt(jnp.maximum(squares, 0))
    if all(factor is None for factor in mean.factors):
        return roots
    axes = tuple(range(1, roots.ndim))
    size = jnp.sqrt(jnp.mean(jnp.maximum(squares, 0), axes, keepdims=True))
    level = float(jnp.finfo(roots.dtype).eps) ** 0.5 * size
    return jnp.where(roots > level, roots, jnp.max(roots, axes, keepdims=True))


def _without_grams(block: CutLeaf) -> bool:
    return not any(block.factored)


def _power(block: CutLeaf, exponent: Scalar | None) -> Scalar:
    """The power of each Gram: ``exponent``, by default ``1/2k`` for k Grams; ½ without Grams."""
    count = sum(block.factored)
    return 0.5 if not count else 0.5 / count if exponent is None else exponent


@settings.checked(exponent=settings.POSITIVE)
def axis_roots(
    eps: Scalar = 1e-6, axes: Axes | None = None, exponent: Scalar | None = None
) -> Structure:
    """``⊗ᵢ (Gᵢ + ε I)^p`` over the k axes with a Gram, stored as inverse roots; p is 1/2k.

    Each refresh computes the roots by ``eigh``, with negative eigenvalues raised to zero, for use
    in the same step. Leaves without Grams have a diagonal, ``(E[v∘w] + ε)^½``.

    Args:
      eps: ε.
      axes: rule for the Grams of a leaf.
      exponent: p; ``None`` for 1/2k.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_roots(), decay=0.9)

    Source: Gupta, Koren and Singer (2018), algorithms 1 and 2; Anil et al. (2020).
    """
    axes = Axes() if axes is None else axes

    def refresh(like: Params, averages: Any, roots: Any, now: Now) -> tuple[Any, Any]:
        def leaf(block, mean, old):
            def root(gram, before):
                if gram is None:
                    return None
                values, vectors = eb.eigenbasis(gram)
                # Eigenvalues are at least at rounding level: inverse roots would amplify noise.
                values = jnp.maximum(values, eb.rounding(gram) * values[:, :1])
                power = jnp.asarray(_power(block, exponent), values.dtype)
                scale = (values + jnp.asarray(eps, values.dtype)) ** -power
                new = jnp.matmul(vectors * scale[:, None, :], vectors.mT, precision=eb.HIGHEST)
                return sound(new, before)

            return tuple(map(root, block.separated(mean.factors), old))

        return averages, tuple(map(leaf, axes.blocks(like), averages, roots))

    def drift(like: Params, averages: Any, roots: Any, damping: Scalar) -> jax.Array:
        def of_one(block, gram, root):
            shift = jnp.asarray(eps, gram.dtype) * jnp.eye(gram.shape[-1], dtype=gram.dtype)
            gram = gram + shift[None]
            times = round(1 / float(_power(block, exponent)))  # pyright: ignore[reportArgumentType]
            return eb.change(gram, jnp.linalg.matrix_power(root, times))

        def leaf(block, mean, old):
            pairs = zip(block.separated(mean.factors), old, strict=True)
            return farthest([of_one(block, g, r) for g, r in pairs if g is not None])

        return farthest(list(map(leaf, axes.blocks(like), averages, roots)))

    def operator(like: Params, averages: Any, roots: Any) -> Operator:
        def entries(mean):
            if mean.squares is None:
                return None
            return jnp.sqrt(mean.squares + jnp.asarray(eps, mean.squares.dtype))

        diagonals = list(map(entries, averages))
        return Kronecker(axes.blocks(like), None, inverses=roots, entries=diagonals)

    # The drift needs an integer power of the root.
    whole = exponent is None or (isinstance(exponent, float) and (1 / exponent).is_integer())
    start, measure = _start(axes, _without_grams), _measure(axes, _without_grams)
    return Structure(start, measure, operator, refresh, drift if whole else None)


@settings.checked(exponent=settings.POSITIVE)
def axis_eigen(
    eps: Scalar = 1e-6, axes: Axes | None = None, exponent: Scalar | None = None
) -> Structure:
    """``⊗ᵢ (Gᵢ + ε I)^p`` as in :func:`axis_roots`, stored as eigenbases.

    The eigenvalues ``diag(Qᵀ G Q)`` are computed at every step from the current Grams, so only the
    bases are old between refreshes. Bases come from ``eigh`` at first, and from one step of
    orthogonal iteration later.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_eigen(), decay=0.9)
    """
    axes = Axes() if axes is None else axes

    def operator(like: Params, averages: Any, bases: Any) -> Operator:
        def entries(block, mean, q):
            power = _power(block, exponent)
            shift = lambda d: (d + jnp.asarray(eps, d.dtype)) ** jnp.asarray(power, d.dtype)
            if mean.squares is not None:
                return shift(mean.squares)
            pairs = zip(mean.factors, q, strict=True)
            values = [None if g is None else shift(eb.rayleigh(g, b)) for g, b in pairs]
            return kr.outer(tuple(values), (block.pieces, *block.sizes))

        blocks = axes.blocks(like)
        return KroneckerEigen(blocks, bases, tuple(map(entries, blocks, averages, bases)))

    start, measure = _start(axes, _without_grams), _measure(axes, _without_grams)
    return Structure(start, measure, operator, _new_bases(axes), basis_drift)
