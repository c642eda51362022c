"""Scalars of a tree in one array per dtype: every array that leaves a branch is a kernel."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from secondorder import meshes


@jax.custom_batching.custom_vmap
def _stacked(slots: list[np.ndarray], *scalars: jax.Array) -> jax.Array:
    stack = jnp.zeros(len(scalars), scalars[0].dtype)
    for slot, x in zip(slots, scalars, strict=True):
        stack = jnp.where(slot, x, stack)
    return stack


@_stacked.def_vmap
def _(size: int, batched: Any, slots: Any, *scalars: jax.Array) -> tuple[jax.Array, bool]:
    del slots
    columns = meshes.lanes(size, batched[1:], scalars)
    # Without the barrier XLA fuses the computation of the scalars into the stack and repeats it
    # for each entry.
    return jnp.stack(jax.lax.optimization_barrier(columns), axis=1), True


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """A tree whose scalars share arrays.

    Attributes:
      rest: the keys and the arrays with axes.
      stacks: the scalars, one array per dtype.
      packing: the :class:`Packing` of the tree.
    """

    rest: list[jax.Array]
    stacks: list[jax.Array]
    packing: Packing = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class Packing:
    """The places of the leaves of a tree in a :class:`Packed` one.

    Attributes:
      structure: the structure of the tree.
      dtypes: the dtype of each leaf.
      kinds: for each array of scalars its dtype (int32 for booleans) and the places of its leaves.
    """

    structure: Any
    dtypes: tuple[np.dtype, ...]
    kinds: tuple[tuple[np.dtype, tuple[int, ...]], ...]

    @classmethod
    def of(cls, example: Any) -> Packing:
        leaves, structure = jax.tree.flatten(example)
        kinds: dict[np.dtype, list[int]] = {}
        for i, leaf in enumerate(leaves):
            dtype = jnp.int32 if leaf.dtype in (jnp.bool_, jnp.int32) else leaf.dtype
            if leaf.shape == () and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                kinds.setdefault(np.dtype(dtype), []).append(i)
        places = tuple((kind, tuple(found)) for kind, found in kinds.items())
        return cls(structure, tuple(leaf.dtype for leaf in leaves), places)

    def pack(self, tree: Any) -> Packed:
        found = jax.tree.leaves(tree)
        rest = [found[i] for i in self._others()]
        stacks = []
        for kind, places in self.kinds:
            # Masks of NumPy are constants; those computed here would be kernels outside a loop.
            slots = list(np.eye(len(places), dtype=bool))
            stacks.append(_stacked(slots, *(found[i].astype(kind) for i in places)))
        return Packed(rest, stacks, self)

    def unpack(self, packed: Packed) -> Any:
        """The tree; of a batch, which ``vmap`` puts on the first axis, the tree of batches."""
        found = dict(zip(self._others(), packed.rest, strict=True))
        for (_, places), stack in zip(self.kinds, packed.stacks, strict=True):
            found |= {i: stack[..., k].astype(self.dtypes[i]) for k, i in enumerate(places)}
        return jax.tree.unflatten(self.structure, [found[i] for i in range(len(self.dtypes))])

    def _others(self) -> list[int]:
        packed = {i for _, places in self.kinds for i in places}
        return [i for i in range(len(self.dtypes)) if i not in packed]
