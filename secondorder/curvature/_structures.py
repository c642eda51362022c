"""How the outer products of samples are summarised: a diagonal, or Grams along the axes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.curvature._samples import Sample
from secondorder.operators import _axes as ax
from secondorder.operators._axes import (
    Axes,
    AxisEigen,
    AxisRoots,
    Factors,
    Layout,
)
from secondorder.operators._base import Operator
from secondorder.operators._diagonal import PositiveDiagonal
from secondorder.tree import Params, Scalar


class Now(NamedTuple):
    """When a frame is renewed: whether for the first time, and under which damping."""

    first: jax.Array
    damping: Scalar


class Structure(NamedTuple):
    """A summary of outer products.

    What is averaged over samples are the *averages*; what is derived from them now and then, since
    it is expensive, is the *frame*: inverse roots, or a basis that the averages are counted in.

    Attributes:
      init: ``params -> (averages, frame)``, zeros and identities.
      measure: ``(sample, frame) -> `` what one sample tells, shaped like the averages.
      operator: ``(like, averages, frame) -> Operator``, ``like`` shaped like the parameters.
      refresh: ``(like, averages, frame, Now) -> (averages, frame)``; ``None`` without a frame.
      drift: ``(like, averages, frame, damping) -> `` how far the averages have moved from the
        frame, relatively; ``None`` if not known.
      behind: whether this step's operator is in the frame of before its refresh.
      recount: whether the first sample is counted anew in the first frame.
      join: ``(averages, averages of one sample less) -> averages``, for a structure that counts
        some of them from the second sample on; ``None`` where all count from the first.
    """

    init: Callable[[Params], tuple[Any, Any]]
    measure: Callable[[Any, Any], Any]
    operator: Callable[[Params, Any, Any], Operator]
    refresh: Callable[[Params, Any, Any, Now], tuple[Any, Any]] | None = None
    drift: Callable[[Params, Any, Any, Scalar], jax.Array] | None = None
    behind: bool = False
    recount: bool = False
    join: Callable[[Any, Any], Any] | None = None


@settings.checked()
def diagonal(
    entries: Callable[[jax.Array], jax.Array] = jnp.abs,
    statistic: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> Structure:
    """``diag(entries(mean of statistic(v ∘ w)))``, leaf by leaf.

    Args:
      entries: from an averaged leaf to entries that are not negative.
      statistic: of a sampled leaf, before it is averaged.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> adam = so.running(so.curvature.gradient(), so.curvature.diagonal(jnp.sqrt), decay=0.999)
    """
    product = lambda v, w: statistic(v * w)
    return Structure(
        init=lambda params: (tree.accumulator(tree.zeros_like(params)), ()),
        measure=lambda sample, frame: jax.tree.map(product, *sample),
        operator=lambda like, mean, frame: PositiveDiagonal(jax.tree.map(entries, mean)),
    )


class Grams(NamedTuple):
    """The averages of one leaf; those of all are a tuple, in the order of the leaves.

    A tree shaped like the parameters would have tuples for leaves, which Flax NNX takes for trees.

    Attributes:
      grams: ``v wᵀ`` along each axis that has one, ``(N, b, b)``.
      squares: ``v ∘ w`` in blocks ``(N, b₁, …)``, in the leaf's basis; ``None`` if not kept.
    """

    grams: Factors
    squares: jax.Array | None


def _zeros(layout: Layout, x: Any, dtype: Any, squares: bool) -> Grams:
    square = layout.square(lambda n, b: jnp.zeros((n, b, b), dtype))
    if not squares:
        return Grams(square, None)
    if not any(layout.factored):
        return Grams(square, jnp.zeros_like(x, dtype)[None])  # sharded as the leaf is
    return Grams(square, jnp.zeros((layout.blocks, *layout.sizes), dtype))


def _eyes(layout: Layout, dtype: Any) -> Factors:
    eye = lambda n, b: jnp.tile(jnp.eye(b, dtype=dtype), (n, 1, 1))
    return layout.square(eye)


def _start(axes: Axes, squares: Callable[[Layout], bool]) -> Callable:
    """``init`` of a structure along the axes: zeros, and identities as the frame."""

    def init(params: Params) -> tuple[Any, Any]:
        def leaf(x):
            layout, dtype = axes.of(x), tree.accumulation_dtype(tree.leaf_dtype(x))
            return _zeros(layout, x, dtype, squares(layout)), _eyes(layout, dtype)

        return _two(map(leaf, jax.tree.leaves(params)))

    return init


def _two(pairs: Iterable[tuple[Any, Any]]) -> tuple[tuple, tuple]:
    """Two tuples from pairs."""
    pairs = tuple(pairs)
    return tuple(first for first, _ in pairs), tuple(second for _, second in pairs)


def sound(new: jax.Array, old: jax.Array) -> jax.Array:
    """A factorisation that failed is not taken."""
    return jnp.where(jnp.all(jnp.isfinite(new)), new, old)


def farthest(drifts: Sequence[jax.Array]) -> jax.Array:
    """The largest of the drifts of single factors; 0 where there is none."""
    peaks = [jnp.max(d).astype(jnp.float32) for d in drifts if d.size]
    return jnp.max(jnp.stack(peaks)) if peaks else jnp.zeros(())


def _basis_drift(like: Params, averages: Any, bases: Any, damping: Scalar) -> jax.Array:
    def leaf(mean, old):
        pairs = zip(mean.grams, old, strict=True)
        return farthest([ax.off_diagonal(g, q) for g, q in pairs if g is not None])

    return farthest([leaf(*each) for each in zip(averages, bases, strict=True)])


@settings.checked()
def axis_basis(axes: Axes | None = None, *, recount: bool = False) -> Structure:
    """A diagonal in the eigenbasis of the Grams: ``(⊗Qᵢ) diag(√E[v'∘v']) (⊗Qᵢ)ᵀ``, ``v' = ⊗Qᵢᵀ v``.

    The squares are counted in the basis at every sample; the basis is of the Grams, by ``eigh`` at
    first and by one step of orthogonal iteration at each later refresh. A step uses the basis of
    before its own gradient, which would look too good in a basis made of it. Leaves without Grams
    have their own coordinates as basis: RMSProp's.

    Args:
      axes: how the leaves are cut.
      recount: whether the squares of the first sample count, in the basis that it gives; else the
        squares begin with the second, and the first step has no basis and no squares to go by.

    Source: Vyas et al. (2024), algorithms 3 and 4.
    """
    axes = Axes() if axes is None else axes

    def measure(sample: Sample, bases: Any) -> Any:
        def leaf(v, w, q):
            layout, qt = axes.of(v), ax.transposed(q)
            v, w = layout.split(v), layout.split(w)
            return Grams(ax.grams(layout, v, w), ax.along_axes(qt, v) * ax.along_axes(qt, w))

        return ax.over_leaves(leaf, sample, bases)

    def operator(like: Params, averages: Any, bases: Any) -> Operator:
        return AxisEigen(axes, bases, tuple(map(_roots, averages)))

    def refresh(like: Params, averages: Any, bases: Any, now: Now) -> tuple[Any, Any]:
        def leaf(way, x, mean, old):
            layout, squares, new = axes.of(x), mean.squares, []
            factors = ax.separated(layout, mean.grams)
            for axis, (gram, q) in enumerate(zip(factors, old, strict=True), start=1):
                if gram is None:
                    new.append(None)
                    continue
                basis, order = way(gram, q)
                # The squares move with their eigenvectors.
                order = ax.along(order, axis, len(old))
                squares = jnp.take_along_axis(squares, order, axis=axis)
                new.append(sound(basis, q))
            if not recount:  # those of the first sample are in no basis yet
                squares = jnp.where(now.first, 0, squares)
            return mean._replace(squares=squares), tuple(new)

        renew = lambda way: _two(
            ax.over_leaves(functools.partial(leaf, way), [like], averages, bases)
        )
        return _first_or_next(now.first, renew)

    def join(averages: Any, later: Any) -> Any:
        pairs = zip(averages, later, strict=True)
        return tuple(mean._replace(squares=less.squares) for mean, less in pairs)

    return Structure(
        _start(axes, lambda layout: True),
        measure,
        operator,
        refresh,
        _basis_drift,
        behind=True,
        recount=recount,
        join=None if recount else join,
    )


def _roots(mean: Grams) -> jax.Array:
    """``√E[v'∘v']``; where that is rounding beside the others of its block, the largest of them.

    A rotated gradient has rounding errors in place of zeros, of which the division would make whole
    steps in directions of its own.
    """
    squares: Any = mean.squares
    roots = jnp.sqrt(jnp.maximum(squares, 0))
    if all(gram is None for gram in mean.grams):
        return roots
    axes = tuple(range(1, roots.ndim))
    size = jnp.sqrt(jnp.mean(jnp.maximum(squares, 0), axes, keepdims=True))
    level = float(jnp.finfo(roots.dtype).eps) ** 0.5 * size
    return jnp.where(roots > level, roots, jnp.max(roots, axes, keepdims=True))


def _first_or_next(first: jax.Array, renew: Callable[[Callable], Any]) -> Any:
    """``renew(way)`` with bases by ``eigh``, or by one step from the ones before."""
    return renew(lambda gram, q: jax.lax.cond(first, _first_basis, ax.next_basis, gram, q))


def _first_basis(gram: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    vectors = ax.first_basis(gram, basis)
    return vectors, jnp.broadcast_to(jnp.arange(gram.shape[-1], dtype=jnp.int32), gram.shape[:2])


def _root_measure(axes: Axes) -> Callable:
    def measure(sample: Sample, frame: Any) -> Any:
        def leaf(v, w):
            layout = axes.of(v)
            v, w = layout.split(v), layout.split(w)
            return Grams(ax.grams(layout, v, w), None if any(layout.factored) else v * w)

        return ax.over_leaves(leaf, sample)

    return measure


def _without_grams(layout: Layout) -> bool:
    return not any(layout.factored)


def _power(layout: Layout, exponent: Scalar | None) -> Scalar:
    """The given power of each Gram, ``1/2k`` for k of them by default; ½ of squares."""
    count = sum(layout.factored)
    return 0.5 if not count else 0.5 / count if exponent is None else exponent


@settings.checked(exponent=settings.POSITIVE)
def axis_roots(
    eps: Scalar = 1e-6, axes: Axes | None = None, exponent: Scalar | None = None
) -> Structure:
    """``⊗ᵢ (Gᵢ + ε I)^p`` over the k axes with a Gram, kept as its inverse roots; p is 1/2k.

    The roots are by ``eigh`` at each refresh, eigenvalues below zero raised to it, and used in the
    same step. Leaves without Grams have their diagonal, ``(E[v∘w] + ε)^½``.

    Args:
      eps: ε.
      axes: how the leaves are cut.
      exponent: p; ``None`` for 1/2k.

    Source: Gupta, Koren and Singer (2018), algorithms 1 and 2; Anil et al. (2020).
    """
    axes = Axes() if axes is None else axes

    def refresh(like: Params, averages: Any, roots: Any, now: Now) -> tuple[Any, Any]:
        def leaf(x, mean, old):
            layout = axes.of(x)

            def root(gram, before):
                if gram is None:
                    return None
                values, vectors = ax.eigenbasis(gram)
                # What may be rounding is as large as rounding: roots would enlarge its noise.
                values = jnp.maximum(values, ax.rounding(gram) * values[:, :1])
                power = jnp.asarray(_power(layout, exponent), values.dtype)
                scale = (values + jnp.asarray(eps, values.dtype)) ** -power
                new = jnp.matmul(vectors * scale[:, None, :], vectors.mT, precision=ax.HIGHEST)
                return sound(new, before)

            factors = ax.separated(layout, mean.grams)
            return tuple(root(g, r) for g, r in zip(factors, old, strict=True))

        return averages, ax.over_leaves(leaf, [like], averages, roots)

    def drift(like: Params, averages: Any, roots: Any, damping: Scalar) -> jax.Array:
        def of_one(x, gram, root):
            shift = jnp.asarray(eps, gram.dtype) * jnp.eye(gram.shape[-1], dtype=gram.dtype)
            gram = gram + shift[None]
            power: Any = _power(axes.of(x), exponent)
            times = round(1 / power)
            return ax.change(gram, jnp.linalg.matrix_power(root, times))

        def leaf(x, mean, old):
            pairs = zip(ax.separated(axes.of(x), mean.grams), old, strict=True)
            return farthest([of_one(x, g, r) for g, r in pairs if g is not None])

        return farthest(ax.over_leaves(leaf, [like], averages, roots))

    def operator(like: Params, averages: Any, roots: Any) -> Operator:
        def entries(x, mean):
            if mean.squares is None:
                return jnp.ones((), tree.accumulation_dtype(x.dtype))
            return jnp.sqrt(mean.squares + jnp.asarray(eps, mean.squares.dtype))

        return AxisRoots(axes, roots, ax.over_leaves(entries, [like], averages))

    # A root's whole power is known, not that of any number.
    whole = exponent is None or (isinstance(exponent, float) and (1 / exponent).is_integer())
    start, measure = _start(axes, _without_grams), _root_measure(axes)
    return Structure(start, measure, operator, refresh, drift if whole else None)


@settings.checked(exponent=settings.POSITIVE)
def axis_eigen(
    eps: Scalar = 1e-6, axes: Axes | None = None, exponent: Scalar | None = None
) -> Structure:
    """The same ``⊗ᵢ (Gᵢ + ε I)^p``, kept as eigenbases with eigenvalues taken anew each step.

    Where roots grow stale between refreshes, only the bases do here: ``diag(Qᵀ G Q)`` is of the
    Grams as they are. Bases are by ``eigh`` at first, by one step of orthogonal iteration later.
    """
    axes = Axes() if axes is None else axes

    def refresh(like: Params, averages: Any, bases: Any, now: Now) -> tuple[Any, Any]:
        def leaf(way, x, mean, old):
            factors = ax.separated(axes.of(x), mean.grams)
            pairs = zip(factors, old, strict=True)
            return tuple(None if g is None else sound(way(g, q)[0], q) for g, q in pairs)

        renew = lambda way: ax.over_leaves(functools.partial(leaf, way), [like], averages, bases)
        return averages, _first_or_next(now.first, renew)

    def operator(like: Params, averages: Any, bases: Any) -> Operator:
        def entries(x, mean, q):
            layout = axes.of(x)
            power = _power(layout, exponent)
            shift = lambda d: (d + jnp.asarray(eps, d.dtype)) ** jnp.asarray(power, d.dtype)
            if mean.squares is not None:
                return shift(mean.squares)
            pairs = zip(mean.grams, q, strict=True)
            values = [None if g is None else shift(ax.rayleigh(g, b)) for g, b in pairs]
            return ax.outer(layout, values)

        return AxisEigen(axes, bases, ax.over_leaves(entries, [like], averages, bases))

    frame = refresh, _basis_drift
    return Structure(_start(axes, _without_grams), _root_measure(axes), operator, *frame)
