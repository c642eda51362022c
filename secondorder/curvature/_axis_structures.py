"""Structures with Grams along the axes of each leaf: of Shampoo and SOAP."""

from __future__ import annotations

import functools
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

    def measure(sample: Sample, frame: Sequence[Factors]) -> tuple[Moments, ...]:
        v, w = map(jax.tree.leaves, sample)
        return tuple(map(leaf, axes.blocks(sample[0]), v, w, frame))

    return measure


def _two(pairs: Iterable[tuple[Any, Any]]) -> tuple[tuple, tuple]:
    """Two tuples from an iterable of pairs."""
    pairs = tuple(pairs)
    return tuple(first for first, _ in pairs), tuple(second for _, second in pairs)


@settings.checked()
def axis_basis(axes: Axes | None = None, *, recount: bool = False) -> Structure:
    """A diagonal in the eigenbasis of the Grams: ``(⊗Qᵢ) diag(√E[v'∘v']) (⊗Qᵢ)ᵀ``, ``v' = ⊗Qᵢᵀ v``.

    The squares are averaged in the basis, at every sample. The basis comes from ``eigh`` of the
    Grams at first, and from one step of orthogonal iteration at each later refresh. A step uses the
    basis before its own gradient, since a basis from this gradient would fit it too well. Leaves
    without Grams keep their coordinates as the basis, as in RMSProp.

    Args:
      axes: rule for the Grams of a leaf.
      recount: True to count the squares of the first sample, in its own basis. False to start the
        squares at the second sample; the first step then has neither basis nor squares.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_basis(), decay=0.9)

    Source: Vyas et al. (2024), algorithms 3 and 4.
    """
    axes = Axes() if axes is None else axes

    def operator(like: Params, averages: Any, bases: Any) -> Operator:
        return KroneckerEigen(axes.blocks(like), bases, tuple(map(_roots, averages)))

    def refresh(like: Params, averages: Any, bases: Any, now: Now) -> tuple[Any, Any]:
        def leaf(way, block, mean, old):
            squares, new = mean.squares, []
            factors = block.separated(mean.factors)
            for axis, (gram, q) in enumerate(zip(factors, old, strict=True), start=1):
                if gram is None:
                    new.append(None)
                    continue
                basis, order = way(gram, q)
                # The squares move with their eigenvectors.
                order = kr.along(order, axis, squares.ndim)
                squares = jnp.take_along_axis(squares, order, axis=axis)
                new.append(sound(basis, q))
            if not recount:  # the squares of the first sample have no basis yet
                squares = jnp.where(now.first, 0, squares)
            return mean._replace(squares=squares), tuple(new)

        parts = axes.blocks(like), averages, bases
        renew = lambda way: _two(map(functools.partial(leaf, way), *parts))
        return _first_or_next(now.first, renew)

    def join(averages: Any, later: Any) -> Any:
        pairs = zip(averages, later, strict=True)
        return tuple(mean._replace(squares=less.squares) for mean, less in pairs)

    return Structure(
        _start(axes, lambda block: True),
        _measure(axes, lambda block: True),
        operator,
        refresh,
        basis_drift,
        behind=True,
        recount=recount,
        join=None if recount else join,
    )


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


def _first_or_next(first: jax.Array, renew: Callable[[Callable], Any]) -> Any:
    """``renew(way)`` with bases from ``eigh``, or from one step of orthogonal iteration."""
    return renew(lambda gram, q: jax.lax.cond(first, _first_basis, eb.next_basis, gram, q))


def _first_basis(gram: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    vectors = eb.first_basis(gram, basis)
    return vectors, jnp.broadcast_to(jnp.arange(gram.shape[-1], dtype=jnp.int32), gram.shape[:2])


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

    def refresh(like: Params, averages: Any, bases: Any, now: Now) -> tuple[Any, Any]:
        def leaf(way, block, mean, old):
            pairs = zip(block.separated(mean.factors), old, strict=True)
            return tuple(None if g is None else sound(way(g, q)[0], q) for g, q in pairs)

        parts = axes.blocks(like), averages, bases
        renew = lambda way: tuple(map(functools.partial(leaf, way), *parts))
        return averages, _first_or_next(now.first, renew)

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
    return Structure(start, measure, operator, refresh, basis_drift)
