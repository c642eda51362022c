"""Scalars of a tree in one array per dtype: every array that leaves a branch is a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.custom_batching.custom_vmap
def _stacked(slots: list[np.ndarray], *scalars: jax.Array) -> jax.Array:
    stack = jnp.zeros(len(scalars), scalars[0].dtype)
    for slot, x in zip(slots, scalars, strict=True):
        stack = jnp.where(slot, x, stack)
    return stack


@_stacked.def_vmap
def _(size: int, batched: Any, slots: Any, *scalars: jax.Array) -> tuple[jax.Array, bool]:
    del slots
    columns = [
        x if b else jnp.broadcast_to(x, (size,)) for x, b in zip(scalars, batched[1:], strict=True)
    ]
    # Without the barrier XLA fuses the computation of the scalars into the stack and repeats it
    # for each entry.
    return jnp.stack(jax.lax.optimization_barrier(columns), axis=1), True


def packing(example: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """``(pack, unpack)`` between a tree like ``example`` and one whose scalars share arrays.

    One array per dtype, booleans among the int32; keys and arrays with axes stay as they are.
    """
    leaves, structure = jax.tree.flatten(example)
    kinds: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        dtype = jnp.int32 if leaf.dtype in (jnp.bool_, jnp.int32) else leaf.dtype
        if leaf.shape == () and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            kinds.setdefault(dtype, []).append(i)
    packed = {i for places in kinds.values() for i in places}

    def pack(tree: Any) -> Any:
        found = jax.tree.leaves(tree)
        rest = [leaf for i, leaf in enumerate(found) if i not in packed]
        stacks = []
        for kind, places in kinds.items():
            # Masks of NumPy are constants; those computed here would be kernels outside a loop.
            slots = list(np.eye(len(places), dtype=bool))
            stacks.append(_stacked(slots, *(found[i].astype(kind) for i in places)))
        return rest, stacks

    def unpack(parts: Any) -> Any:
        rest, stacks = parts
        found = dict(zip((i for i in range(len(leaves)) if i not in packed), rest, strict=True))
        for places, stack in zip(kinds.values(), stacks, strict=True):
            found |= {i: stack[k].astype(leaves[i].dtype) for k, i in enumerate(places)}
        return jax.tree.unflatten(structure, [found[i] for i in range(len(leaves))])

    return pack, unpack
