"""Kronecker products along the axes of each leaf: ``B = (⊗ᵢ Qᵢ) diag(entries) (⊗ᵢ Qᵢ)ᵀ``.

A leaf of shape ``(d₁, …, d_r)`` has a Gram for each axis i: ``Gᵢ = E[v wᵀ]``, ``(dᵢ, dᵢ)``, of its
samples v and w, summed over the other axes. Too long axes are cut into blocks or have no Gram; a
leaf of fewer than two axes has none. Blocks are stacked along a leading axis: arrays here are
``(N, b₁, …, b_r)``, Grams and bases ``(N, bᵢ, bᵢ)``, or ``None`` for an axis without a Gram.

Source: Gupta, Koren and Singer (2018); Anil et al. (2020) for blocks; Vyas et al. (2024) for bases.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from secondorder import meshes, settings, tree
from secondorder.operators._base import Operator
from secondorder.operators._diagonal import damped_power
from secondorder.tree import Params, Scalar

HIGHEST = jax.lax.Precision.HIGHEST
Factors = tuple[jax.Array | None, ...]  # one (N, bᵢ, bᵢ) per axis, or None


@dataclasses.dataclass(frozen=True)
class Axes:
    """Rule for the Grams of a leaf: which axes have one, and the size of its blocks.

    Attributes:
      block_size: longer axes are cut into even blocks of at most this length; ``None`` cuts none.
      max_size: axes longer than this have no Gram; ``None`` for no limit.

    Example:
      >>> import secondorder as so
      >>> roots = so.curvature.axis_roots(axes=so.operators.Axes(block_size=128))
      >>> curvature = so.running(so.curvature.gradient(), roots, decay=0.9)
    """

    block_size: int | None = None
    max_size: int | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            settings.KINDS[name].or_none().of("operators.Axes", name, value)

    def of(self, leaf: Any) -> Layout:
        shape = jnp.shape(leaf)
        vector = len(shape) < 2 or math.prod(shape) == 0
        limit = math.inf if self.max_size is None else self.max_size
        factored = tuple(not vector and d <= limit for d in shape)
        most = self.block_size or math.inf
        counts = [
            max(math.ceil(d / most), 1) if f else 1 for d, f in zip(shape, factored, strict=True)
        ]
        sizes = [math.ceil(d / n) for d, n in zip(shape, counts, strict=True)]
        return Layout(shape, tuple(counts), tuple(sizes), factored)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The blocks of one leaf: their number and length along each axis, and the axes with a Gram."""

    shape: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    factored: tuple[bool, ...]

    @property
    def blocks(self) -> int:
        return math.prod(self.counts)

    def split(self, x: jax.Array) -> jax.Array:
        """The leaf as blocks ``(N, b₁, …, b_r)``, padded with zeros."""
        if not any(self.factored):
            return x[None]
        x, rank = meshes.gathered(x), len(self.shape)
        if self.blocks == 1:
            return x[None]
        cut = list(zip(self.counts, self.sizes, strict=True))
        pads = [(0, n * b - d) for (n, b), d in zip(cut, self.shape, strict=True)]
        x = jnp.pad(x, pads).reshape(list(itertools.chain(*cut)))
        x = x.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
        return x.reshape(self.blocks, *self.sizes)

    def join(self, x: jax.Array) -> jax.Array:
        """The leaf from its blocks."""
        if self.blocks == 1:
            return x[0]
        rank = len(self.shape)
        x = x.reshape(*self.counts, *self.sizes)
        x = x.transpose(*itertools.chain(*((i, rank + i) for i in range(rank))))
        x = x.reshape([n * b for n, b in zip(self.counts, self.sizes, strict=True)])
        return x[tuple(slice(d) for d in self.shape)]

    def padding(self, axis: int) -> np.ndarray:
        """Mask of the padding along an axis: ``(N, b)`` booleans."""
        n, b = self.counts[axis], self.sizes[axis]
        beyond = np.arange(n * b).reshape(n, b) >= self.shape[axis]
        wide = beyond.reshape([n if i == axis else 1 for i in range(len(self.counts))] + [b])
        return np.broadcast_to(wide, (*self.counts, b)).reshape(self.blocks, b)

    def square(self, fill: Callable[[int, int], jax.Array]) -> Factors:
        """``fill(N, b)`` for each axis with a Gram, ``None`` for the others."""
        pairs = zip(self.sizes, self.factored, strict=True)
        return tuple(fill(self.blocks, b) if f else None for b, f in pairs)


def grams(layout: Layout, v: jax.Array, w: jax.Array) -> Factors:
    """``v wᵀ`` along each axis with a Gram, for two leaves in blocks."""

    def gram(axis: int) -> jax.Array:
        others = [i for i in range(1, v.ndim) if i != axis]
        product = jax.lax.dot_general(v, w, ((others, others), ((0,), (0,))), precision=HIGHEST)
        return 0.5 * (product + product.mT)

    return tuple(gram(i + 1) if f else None for i, f in enumerate(layout.factored))


def along_axes(factors: Sequence[jax.Array | None], x: jax.Array) -> jax.Array:
    """``(⊗ᵢ Fᵢ) x`` for a leaf in blocks."""
    for axis, factor in enumerate(factors, start=1):
        if factor is not None:
            x = along_axis(factor, x, axis)
    return x


def along_axis(factor: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """``F x`` for each of ``(N, b, b)``, along one axis of a leaf in blocks."""
    if axis == x.ndim - 1:  # already the last axis: no transposition
        contract = ((axis,), (2,)), ((0,), (0,))
        return jax.lax.dot_general(x, factor, contract, precision=HIGHEST)
    contract = ((2,), (axis,)), ((0,), (0,))
    return jnp.moveaxis(jax.lax.dot_general(factor, x, contract, precision=HIGHEST), 1, axis)


def transposed(factors: Factors) -> Factors:
    """``Fᵢᵀ`` for each axis."""
    return tuple(None if f is None else f.mT for f in factors)


def separated(layout: Layout, factors: Factors) -> Factors:
    """The Grams with a large eigenvalue for the padding, so that no eigenvector mixes it in."""

    def apart(axis: int, gram: jax.Array | None) -> jax.Array | None:
        padding = layout.padding(axis)
        if gram is None or not padding.any():
            return gram
        peak = jnp.trace(gram, axis1=1, axis2=2)[:, None]
        own = jnp.where(padding, peak, 0)
        return gram + own[..., None] * jnp.eye(gram.shape[-1], dtype=gram.dtype)[None]

    return tuple(apart(i, gram) for i, gram in enumerate(factors))


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


def next_basis(gram: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of orthogonal iteration from a nearby basis: ``Q⁺ = qr(G Q)``.

    The iteration needs descending eigenvalues, so the columns are sorted first. A column whose
    image is at rounding level, relative to the columns before it, is only made orthogonal to them.

    Returns:
      The basis, and the order ``(N, b)`` of the old columns.
    """
    values = rayleigh(gram, basis)
    values = jnp.where(values > rounding(gram) * jnp.max(values, 1, keepdims=True), values, 0)
    order = jnp.argsort(-values, axis=1, stable=True).astype(jnp.int32)
    basis = jnp.take_along_axis(basis, order[:, None, :], axis=2)
    size = jnp.max(jnp.abs(gram), axis=(1, 2), keepdims=True)
    image = jnp.matmul(gram / jnp.where(size > 0, size, 1), basis, precision=HIGHEST)
    new, triangle = one_by_one(lambda x: tuple(jnp.linalg.qr(x)), image)
    own = jnp.abs(jnp.diagonal(triangle, axis1=1, axis2=2))
    unknown = own <= rounding(gram) * jnp.max(own, axis=1, keepdims=True)
    kept = lambda: jnp.where(unknown[:, None, :], basis, image)
    again = lambda: one_by_one(lambda x: jnp.linalg.qr(x)[0], kept())
    return jax.lax.cond(jnp.any(unknown), again, lambda: new), order


def along(vector: jax.Array, axis: int, rank: int) -> jax.Array:
    """``(N, b)``, reshaped to broadcast along one axis of a leaf in blocks."""
    return jnp.expand_dims(vector, tuple(i for i in range(1, rank + 1) if i != axis))


def outer(layout: Layout, vectors: Sequence[jax.Array | None]) -> jax.Array:
    """``⊗ᵢ vᵢ`` in the shape of a leaf in blocks; ones for an axis without a vector."""
    dtype = tree.joined(*(v.dtype for v in vectors if v is not None))
    product = jnp.ones((layout.blocks, *layout.sizes), dtype)
    for axis, vector in enumerate(vectors, start=1):
        if vector is not None:
            product = product * along(vector, axis, len(vectors))
    return product


def over_leaves(fn: Callable, trees: Sequence[Params], *kept: Sequence[Any]) -> tuple:
    """``fn(leaf of each tree, …, item of each kept)`` for every leaf, as a tuple in leaf order."""
    return tuple(itertools.starmap(fn, zip(*map(jax.tree.leaves, trees), *kept, strict=True)))


def _by_leaf(axes: Axes, fn: Callable, v: Params, *rest: Sequence[Any]) -> Params:
    """The tree of ``fn(blocks of a leaf, …)``, joined again, in at least float32."""

    def leaf(x, *parts):
        layout = axes.of(x)
        wide = jnp.asarray(x, tree.accumulation_dtype(x.dtype))
        found = layout.join(fn(layout.split(wide), *parts)).astype(x.dtype)
        return meshes.placed_like(found, x)

    return jax.tree.unflatten(jax.tree.structure(v), over_leaves(leaf, [v], *rest))


@dataclasses.dataclass(frozen=True, eq=False)
class AxisEigen(Operator):
    """``(⊗ᵢ Qᵢ) diag(entries) (⊗ᵢ Qᵢ)ᵀ`` on each leaf, ``entries ≥ 0`` in blocks.

    Attributes:
      bases: for each leaf, in order, the :data:`Factors` Q.
      entries: for each leaf, an array ``(N, b₁, …, b_r)``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> w = jnp.eye(2)
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_eigen(), decay=0.9)
      >>> operator, _ = curvature.update(w, curvature.init(w), w, None)
      >>> isinstance(operator, so.operators.AxisEigen)
      True
    """

    axes: Axes
    bases: Any
    entries: Any

    def _apply(self, v: Params, fn: Callable[[jax.Array], jax.Array]) -> Params:
        leaf = lambda x, q, entries: along_axes(q, fn(entries) * along_axes(transposed(q), x))
        return _by_leaf(self.axes, leaf, v, self.bases, self.entries)

    def mv(self, v: Params) -> Params:
        return self._apply(v, lambda entries: entries)

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``(B + λ I)⁻¹ v``."""
        return self.power(v, -1, damping)

    def power(self, v: Params, p: Scalar, damping: Scalar) -> Params:
        """``(B + λ I)ᵖ v``."""
        return self._apply(v, lambda d: damped_power(d, p, damping))


@dataclasses.dataclass(frozen=True, eq=False)
class AxisRoots(Operator):
    """``(⊗ᵢ Rᵢ)⁻¹`` on each leaf, stored as inverse roots ``Rᵢ`` along its axes.

    Attributes:
      roots: for each leaf, in order, the :data:`Factors` R.
      entries: for each leaf without an R, its diagonal in blocks; ones for the others.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> w = jnp.eye(2)
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_roots(), decay=0.9)
      >>> operator, _ = curvature.update(w, curvature.init(w), w, None)
      >>> isinstance(operator, so.operators.AxisRoots)
      True
    """

    axes: Axes
    roots: Any
    entries: Any

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``(⊗ᵢ Rᵢ) v``; the roots include the damping."""
        del damping
        divide = lambda x, d: jnp.where(d > 0, x / jnp.where(d > 0, d, 1), 0)
        leaf = lambda x, r, d: divide(along_axes(r, x), d)
        return _by_leaf(self.axes, leaf, v, self.roots, self.entries)

    def mv(self, v: Params) -> Params:
        def leaf(x, roots, entries):
            inverses = [None if r is None else jnp.linalg.inv(r) for r in roots]
            return entries * along_axes(inverses, x)

        return _by_leaf(self.axes, leaf, v, self.roots, self.entries)
