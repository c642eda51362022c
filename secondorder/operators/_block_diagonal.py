"""Block-diagonal curvature, one block for each layer: ``B = ⊕ B_ll``.

The vectors of a block are trees like the parameters, with ``optax.MaskedNode()`` for every leaf of
another layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import optax

from secondorder.operators._base import Operator
from secondorder.tree import Params

Path = tuple[Any, ...]  # keys, as in jax.tree_util
Group = tuple[int, ...]  # the leaves of a layer: indices in jax.tree.leaves(params)


def by_module(path: Path) -> Hashable:
    """The parent path of a leaf, which the kernel and bias of a layer share.

    Example:
      >>> import jax, secondorder as so
      >>> keys = [jax.tree_util.DictKey(name) for name in ("dense", "kernel", "bias")]
      >>> so.operators.by_module(keys[:2]) == so.operators.by_module([keys[0], keys[2]])
      True
    """
    return jax.tree_util.keystr(_of_array(path)[:-1])


def by_leaf(path: Path) -> Hashable:
    """The path of the leaf: each leaf is a layer.

    Example:
      >>> import jax, secondorder as so
      >>> keys = [jax.tree_util.DictKey(name) for name in ("dense", "kernel", "bias")]
      >>> so.operators.by_leaf(keys[:2]) == so.operators.by_leaf([keys[0], keys[2]])
      False
    """
    return jax.tree_util.keystr(_of_array(path))


def _of_array(path: Path) -> Path:
    """The path without the ``.value`` of a Flax NNX variable."""
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
    """``x`` with gaps for the leaves outside the group."""
    leaves, structure = jax.tree.flatten(x)
    own = [leaf if i in group else optax.MaskedNode() for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, own)


def joined(parts: Sequence[Params], groups: Sequence[Group], like: Params) -> Params:
    """The whole tree from the trees of its groups."""
    found: dict[int, Any] = {}
    for part, group in zip(parts, groups, strict=True):
        found |= dict(zip(group, jax.tree.leaves(part), strict=True))
    structure = jax.tree.structure(like)
    return jax.tree.unflatten(structure, [found[i] for i in range(structure.num_leaves)])


@dataclasses.dataclass(frozen=True, eq=False)
class BlockDiagonal(Operator):
    """``⊕ B_ll``.

    Attributes:
      groups: the leaves of each block; every leaf is in one group.
      blocks: the operator of each group, on trees with gaps.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.losses.half_sum_of_squares(), lambda p: p["a"] * p["b"])
      >>> p = {"a": jnp.ones(2), "b": jnp.ones(2)}
      >>> curvature = so.curvature.block_diagonal()
      >>> operator, _ = curvature.update(p, curvature.init(p), p, f)
      >>> isinstance(operator, so.operators.BlockDiagonal)
      True
    """

    groups: Sequence[Group]
    blocks: Sequence[Operator]

    def mv(self, v: Params) -> Params:
        pairs = zip(self.blocks, self.groups, strict=True)
        return joined([op.mv(of_group(v, group)) for op, group in pairs], self.groups, v)

    def layer_blocks(self) -> tuple[Sequence[Group], Sequence[Operator]]:
        return self.groups, self.blocks
