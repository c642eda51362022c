"""Arrays on meshes of devices: shardings that arrays take from one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.core import Tracer


def explicit_sharding(x: Any) -> jax.sharding.NamedSharding | None:
    """The sharding in the type of an array on a mesh with explicit axes, else ``None``."""
    sharding = jax.typeof(x).sharding
    return sharding if sharding.mesh.explicit_axes else None


def gathered(x: jax.Array) -> jax.Array:
    """``x`` replicated on every device if it is explicitly sharded, else unchanged."""
    sharding = explicit_sharding(x)
    if sharding is None:
        return x
    return _on_all_of(sharding.mesh, x)


def _on_all_of(mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh, x: jax.Array) -> jax.Array:
    whole = jax.sharding.PartitionSpec(*[None] * x.ndim)
    return jax.sharding.reshard(x, jax.sharding.NamedSharding(mesh, whole))


def gathered_leaves(x: Any) -> list[jax.Array]:
    """The leaves replicated on the explicit mesh of any of them, those made elsewhere too."""
    leaves = jax.tree.leaves(x)
    meshes = [s.mesh for s in map(explicit_sharding, leaves) if s is not None]
    return [_on_all_of(meshes[0], leaf) for leaf in leaves] if meshes else leaves


def placed_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """``x`` with the sharding of ``like`` if that is explicit, else unchanged."""
    sharding = explicit_sharding(like)
    return x if sharding is None else jax.sharding.reshard(x, sharding)


def rows_gathered(x: Any, length: int = 1) -> Any:
    """The leaves, the first axis replicated where its devices do not share ``length`` evenly.

    JAX does not cut an explicitly sharded axis into pieces of another length.
    """

    def leaf(x: Any) -> Any:
        sharding = explicit_sharding(x)
        if sharding is None or not x.ndim:
            return x
        mesh, (first, *others) = sharding.mesh, sharding.spec
        names = first if isinstance(first, tuple) else () if first is None else (first,)
        if length % math.prod(mesh.shape[name] for name in names) == 0:
            return x
        whole = jax.sharding.PartitionSpec(None, *others)
        return jax.sharding.reshard(x, jax.sharding.NamedSharding(mesh, whole))

    return jax.tree.map(leaf, x)


def lanes(size: int, batched: Sequence[bool], arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The arrays of a ``vmap`` rule, each with ``size`` lanes first, all on the same devices."""
    pairs = zip(arrays, batched, strict=True)
    wide = [x if b else jax.numpy.broadcast_to(x, (size, *x.shape)) for x, b in pairs]
    found = next((s for s in map(lane_sharding, wide) if s is not None), None)
    if found is None:
        return wide
    return [jax.sharding.reshard(x, found) for x in wide]


def lane_sharding(x: jax.Array) -> jax.sharding.NamedSharding | None:
    """The sharding of the first axis alone if devices share it explicitly, else ``None``."""
    sharding = explicit_sharding(x)
    if sharding is None or sharding.spec[0] is None:
        return None
    first = jax.sharding.PartitionSpec(sharding.spec[0])
    return jax.sharding.NamedSharding(sharding.mesh, first)


def first_row(x: Any) -> Any:
    """``x[0]`` of every leaf."""
    return jax.tree.map(lambda x: x[0], rows_gathered(x))


def held_whole(x: Any, params: Any) -> Any:
    """A memory, replicated on the mesh of the parameters where its axes are automatic.

    It starts so, and a step that gave it back in another sharding would be compiled again.
    """
    mesh = next((jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(params)), None)
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((x, params)))
    if mesh is None or mesh.empty or not traced or not mesh.are_all_axes_auto:
        return x
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, everywhere), x)
