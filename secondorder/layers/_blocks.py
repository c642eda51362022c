"""Blocks: leaves that share one pair of factors, and their layout in it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from secondorder import meshes
from secondorder.layers import _strided_views as strides
from secondorder.layers._strided_views import Axis


@dataclasses.dataclass(frozen=True)
class Part:
    """The order of a leaf's factors within a block.

    Attributes:
      shape: of the leaf.
      stacked, rows, columns: the leaf's factors in each role, in the order of the block.
    """

    shape: tuple[int, ...]
    stacked: Axis
    rows: Axis
    columns: Axis

    @property
    def sizes(self) -> tuple[int, int, int]:
        """``(S, a, b)`` of this leaf alone."""
        return tuple(map(strides.length, (self.stacked, self.rows, self.columns)))  # pyright: ignore[reportReturnType]

    def _order(self) -> tuple[list[int], list[int]]:
        wanted = [*self.stacked, *self.rows, *self.columns]
        flat = sorted(wanted, key=lambda factor: -factor[1])
        return [n for n, _ in flat], [flat.index(factor) for factor in wanted]

    def join(self, leaf: jax.Array) -> jax.Array:
        sizes, order = self._order()
        return jnp.reshape(leaf, sizes).transpose(order).reshape(self.sizes)

    def split(self, array: jax.Array) -> jax.Array:
        sizes, order = self._order()
        spread = array.reshape([sizes[i] for i in order])
        back = sorted(range(len(order)), key=order.__getitem__)
        return spread.transpose(back).reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Block:
    """Leaves that form S independent linear maps of a inputs and b outputs.

    Attributes:
      name: path of the kernel, as ``jax.tree_util.keystr`` writes it.
      leaves: indices in ``jax.tree.leaves(params)``; the kernel, or scale, first.
      kind: ``"dense"``, ``"convolution"``, ``"embedding"``, ``"scale and shift"``, ``"bias"`` or
        ``"fallback"``.
      reason: a sentence.
      shape: ``(S, a, b)``. The last row of a layer with a bias is the bias; a scale and its shift
        are one row ``(S, 1, 2C)``, a fallback is ``(1, 1, size)``.
      parts: the layout of each leaf in the block.
      apart: whether its statistics separate all examples; false for a fallback, where every
        position counts as an example, and for leaves that are returned.
      returned: whether the model returns any of its leaves, as for a penalty.
    """

    name: str
    leaves: tuple[int, ...]
    kind: str
    reason: str
    shape: tuple[int, int, int]
    parts: tuple[Part, ...]
    apart: bool = False
    returned: bool = False

    @property
    def _axis(self) -> int:
        return 2 if self.kind == "scale and shift" else 1

    def join(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The leaves of the block (only those, in its order) as one array ``(S, a, b)``."""
        whole = map(meshes.gathered, leaves)
        arrays = [part.join(leaf) for part, leaf in zip(self.parts, whole, strict=True)]
        return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis=self._axis)

    def split(self, array: jax.Array) -> list[jax.Array]:
        """The leaves of the block from an array ``(S, a, b)``, in its dtype."""
        ends = list(itertools.accumulate(part.sizes[self._axis] for part in self.parts))
        pieces = jnp.split(array, ends[:-1], axis=self._axis) if len(ends) > 1 else [array]
        return [part.split(piece) for part, piece in zip(self.parts, pieces, strict=True)]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The blocks of a model's parameters: static, hashable, every leaf in exactly one.

    Attributes:
      blocks: in the order of their first leaves.
      paths: of all leaves, as ``jax.tree_util.keystr`` writes them.
    """

    blocks: tuple[Block, ...]
    paths: tuple[str, ...]
