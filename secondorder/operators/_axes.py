"""Leaves as blocks of Kronecker products along their axes: whole, or cut into a stack.

A leaf of shape ``(d₁, …, d_r)`` has a factor for each axis i, ``(dᵢ, dᵢ)``, such as the Gram
``E[v wᵀ]`` of its samples v and w, summed over the other axes. Too long axes are cut into pieces or
have no factor; a leaf of fewer than two axes has none. Pieces are stacked along a leading axis:
arrays here are ``(N, b₁, …, b_r)``, factors ``(N, bᵢ, bᵢ)``, or ``None`` for an axis without one.

Source: Gupta, Koren and Singer (2018); Anil et al. (2020) for pieces.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from secondorder import meshes, settings
from secondorder.operators._kronecker import Factors
from secondorder.tree import Params


@dataclasses.dataclass(frozen=True)
class Axes:
    """Rule for the factors of a leaf: which axes have one, and the size of its pieces.

    Attributes:
      block_size: longer axes are cut into even pieces of at most this length; ``None`` cuts none.
      max_size: axes longer than this have no factor; ``None`` for no limit.

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

    def blocks(self, params: Params) -> tuple[CutLeaf, ...]:
        """The block of each leaf, in order."""
        shapes = map(jnp.shape, jax.tree.leaves(params))
        return tuple(self.of(shape, index) for index, shape in enumerate(shapes))

    def of(self, shape: tuple[int, ...], index: int = 0) -> CutLeaf:
        """The block of a leaf of this shape."""
        vector = len(shape) < 2 or math.prod(shape) == 0
        limit = math.inf if self.max_size is None else self.max_size
        factored = tuple(not vector and d <= limit for d in shape)
        most = self.block_size or math.inf
        counts = [
            max(math.ceil(d / most), 1) if f else 1 for d, f in zip(shape, factored, strict=True)
        ]
        sizes = [math.ceil(d / n) for d, n in zip(shape, counts, strict=True)]
        return CutLeaf(index, shape, tuple(counts), tuple(sizes), factored)


@dataclasses.dataclass(frozen=True)
class CutLeaf:
    """A block of a single leaf, cut along its axes into a stack of N pieces.

    Attributes:
      index: of the leaf in ``jax.tree.leaves(params)``.
      shape: of the leaf.
      counts, sizes: number and length of the pieces along each axis.
      factored: which axes have a factor.

    Example:
      >>> import secondorder as so
      >>> block = so.operators.Axes(block_size=4).of((6, 3))
      >>> isinstance(block, so.operators.CutLeaf), block.counts, block.sizes
      (True, (2, 1), (3, 3))
    """

    index: int
    shape: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    factored: tuple[bool, ...]

    @property
    def leaves(self) -> tuple[int, ...]:
        return (self.index,)

    @property
    def pieces(self) -> int:
        """Their number N."""
        return math.prod(self.counts)

    def join(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The leaf as pieces ``(N, b₁, …, b_r)``, padded with zeros."""
        (x,) = leaves
        if not any(self.factored):
            return x[None]  # entry by entry: each stays on its device
        x, rank = meshes.gathered(x), len(self.shape)
        if self.pieces == 1:
            return x[None]
        cut = list(zip(self.counts, self.sizes, strict=True))
        pads = [(0, n * b - d) for (n, b), d in zip(cut, self.shape, strict=True)]
        x = jnp.pad(x, pads).reshape(list(itertools.chain(*cut)))
        x = x.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
        return x.reshape(self.pieces, *self.sizes)

    def split(self, array: jax.Array) -> list[jax.Array]:
        """The leaf from its pieces."""
        if self.pieces == 1:
            return [array[0]]
        rank = len(self.shape)
        x = array.reshape(*self.counts, *self.sizes)
        x = x.transpose(*itertools.chain(*((i, rank + i) for i in range(rank))))
        x = x.reshape([n * b for n, b in zip(self.counts, self.sizes, strict=True)])
        return [x[tuple(slice(d) for d in self.shape)]]

    def padding(self, axis: int) -> np.ndarray:
        """Mask of the padding along an axis: ``(N, b)`` booleans."""
        n, b = self.counts[axis], self.sizes[axis]
        beyond = np.arange(n * b).reshape(n, b) >= self.shape[axis]
        wide = beyond.reshape([n if i == axis else 1 for i in range(len(self.counts))] + [b])
        return np.broadcast_to(wide, (*self.counts, b)).reshape(self.pieces, b)

    def square(self, fill: Callable[[int, int], jax.Array]) -> Factors:
        """``fill(N, b)`` for each axis with a factor, ``None`` for the others."""
        pairs = zip(self.sizes, self.factored, strict=True)
        return tuple(fill(self.pieces, b) if f else None for b, f in pairs)

    def separated(self, factors: Factors) -> Factors:
        """The factors with a large eigenvalue for the padding: no eigenvector mixes it in."""

        def apart(axis: int, gram: jax.Array | None) -> jax.Array | None:
            padding = self.padding(axis)
            if gram is None or not padding.any():
                return gram
            peak = jnp.trace(gram, axis1=1, axis2=2)[:, None]
            own = jnp.where(padding, peak, 0)
            return gram + own[..., None] * jnp.eye(gram.shape[-1], dtype=gram.dtype)[None]

        return tuple(apart(i, gram) for i, gram in enumerate(factors))


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A block of a single leaf, with the axes of the leaf or one axis for all entries.

    Example:
      >>> import secondorder as so
      >>> block = so.operators.Leaf(0, (3,))
      >>> block.index, block.shape
      (0, (3,))
    """

    index: int
    shape: tuple[int, ...]

    @property
    def leaves(self) -> tuple[int, ...]:
        return (self.index,)

    @property
    def axes(self) -> tuple[int, ...]:
        """The lengths of the axes, after the leading axis of length one."""
        if 0 in self.shape:
            return (0,)
        return tuple(d for d in self.shape if d != 1) or (1,)

    def join(self, leaves: Sequence[jax.Array]) -> jax.Array:
        return meshes.gathered(leaves[0]).reshape(1, *self.axes)

    def split(self, array: jax.Array) -> list[jax.Array]:
        return [array.reshape(self.shape)]
