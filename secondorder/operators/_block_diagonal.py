"""The diagonal blocks of a curvature, one for each layer: ``B = ⊕ B_ll``.

A block's vectors are trees like the parameters, with a gap (``optax.MaskedNode()``) for every leaf
of other layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import optax

from secondorder.operators._base import Operator
from secondorder.tree import Params

Path = tuple[Any, ...]  # of keys, as in jax.tree_util
Group = tuple[int, ...]  # the leaves of a layer: indices in jax.tree.leaves(params)


def by_module(path: Path) -> Hashable:
    """The place in the tree that a leaf hangs from: kernel and bias of a layer share it."""
    return jax.tree_util.keystr(_of_array(path)[:-1])


def by_leaf(path: Path) -> Hashable:
    """The leaf itself: each is a layer."""
    return jax.tree_util.keystr(_of_array(path))


def _of_array(path: Path) -> Path:
    """The path without the ``.value`` of Flax NNX, whose variables hold an array each."""
    last = path[-1:]
    boxed = last and getattr(last[0], "name", None) == "value"
    return path[:-1] if boxed else path


def groups_of(params: Params, layer_of: Callable[[Path], Hashable]) -> tuple[Group, ...]:
    """The leaves of each layer, in the order of the tree."""
    found: dict[Hashable, list[int]] = {}
    for index, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        found.setdefault(layer_of(path), []).append(index)
    return tuple(map(tuple, found.values()))


def of_group(x: Params, group: Group) -> Params:
    """``x`` with gaps for the leaves that are not of the group."""
    leaves, structure = jax.tree.flatten(x)
    own = [leaf if i in group else optax.MaskedNode() for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, own)


def joined(parts: Sequence[Params], groups: Sequence[Group], like: Params) -> Params:
    """The whole tree from those of its groups."""
    found: dict[int, Any] = {}
    for part, group in zip(parts, groups, strict=True):
        found |= dict(zip(group, jax.tree.leaves(part), strict=True))
    structure = jax.tree.structure(like)
    return jax.tree.unflatten(structure, [found[i] for i in range(structure.num_leaves)])


@dataclasses.dataclass(frozen=True, eq=False)
class BlockDiagonal(Operator):
    """``⊕ B_ll``.

    Attributes:
      groups: the leaves of each block; every leaf in one of them.
      blocks: an operator for each, on trees with gaps.
    """

    groups: Sequence[Group]
    blocks: Sequence[Operator]

    def mv(self, v: Params) -> Params:
        pairs = zip(self.blocks, self.groups, strict=True)
        return joined([op.mv(of_group(v, group)) for op, group in pairs], self.groups, v)

    def layer_blocks(self) -> tuple[Sequence[Group], Sequence[Operator]]:
        return self.groups, self.blocks
