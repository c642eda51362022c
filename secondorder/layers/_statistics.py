"""Layer inputs and output gradients from the taps, in the layout (S, N, T, ·)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import meshes, tree
from secondorder.layers import _axis_labels as labels
from secondorder.layers import _strided_views as strides
from secondorder.layers._grouping import Group
from secondorder.layers._strided_views import Axis
from secondorder.layers._uses import Site, Spec


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["inputs", "sensitivities", "indices"],
    meta_fields=["transposed"],
)
@dataclasses.dataclass(frozen=True)
class Use:
    """One use of a block: its inputs, and the gradient with respect to its outputs.

    ``Σₙₜ inputs[s,n,t,:] ⊗ sensitivities[s,n,t,:]``, summed over the uses, is the gradient.

    Attributes:
      inputs: ``(S, N, T, a)``; the last of a layer with a bias is 1. ``None`` where there are
        ``indices``.
      sensitivities: ``(S, N, T, b)``.
      indices: ``(S, N, T)``, for a look-up: the rows, in place of unit vectors as inputs.
      transposed: whether the roles are exchanged: for a tied kernel that is transposed in this use,
        ``inputs`` are the sensitivities of its outputs, and ``sensitivities`` its inputs.
    """

    inputs: jax.Array | None
    sensitivities: jax.Array
    indices: jax.Array | None = None
    transposed: bool = False


def statistics(g: Group, records: dict, slopes: dict) -> tuple[Use, ...]:
    """The uses of a block, from the records and the cotangents at the taps."""
    if g.block.kind == "fallback":
        return ()
    if g.sites[0][0].kind in ("scale", "shift"):
        return _entries(g, records, slopes)
    found = []
    for (site,), transposed in zip(g.sites, g.transposed, strict=True):
        record = records[site.recorded or site.path]
        found.append(_product(g, site, transposed, record, slopes[site.path]))
    return _stacked(g, list(zip(g.slots, found, strict=True)))


def _stacked(g: Group, uses: list[tuple[int, Use]]) -> tuple[Use, ...]:
    """Uses of the whole of a sliced leaf, from those of its slots; zeros where a slot has none."""
    if g.pieces == 1:
        return tuple(use for _, use in uses)
    rounds: dict[Any, dict[int, Use]] = {}
    for slot, use in uses:
        shapes = jax.tree.structure(use), tuple(x.shape for x in jax.tree.leaves(use))
        number = 0
        while slot in rounds.setdefault((number, *shapes), {}):
            number += 1
        rounds[number, *shapes][slot] = use
    found = []
    for round_ in rounds.values():
        nothing = jax.tree.map(jnp.zeros_like, next(iter(round_.values())))
        parts = [round_.get(slot, nothing) for slot in range(g.pieces)]
        found.append(jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts))
    return tuple(found)


def _wide(x: jax.Array) -> jax.Array:
    """``x`` in at least float32, replicated on every device, since axes are merged later."""
    x = meshes.gathered(x)
    return jnp.asarray(x, tree.accumulation_dtype(x.dtype))


def _product(g: Group, site: Site, transposed: bool, record: tuple, slope: jax.Array) -> Use:
    part = g.block.parts[0]
    rows, columns = (part.columns, part.rows) if transposed else (part.rows, part.columns)
    arrange = lambda x, spec, axis: _arrange(x, spec, site, g.examples, part, axis)
    value, factor = record
    slope = _wide(slope)
    if site.kind == "embedding":
        if factor is not None:
            slope = slope * _fit(_wide(factor), slope.shape, site.depth)
        indices, valid = _rows_of(site, meshes.gathered(value))
        slope = arrange(slope, site.outputs, columns)
        valid = arrange(valid, site.inputs, ())[..., 0]
        indices = arrange(indices, site.inputs, ())[..., 0]
        indices = jnp.broadcast_to(indices, slope.shape[:3])
        return Use(None, jnp.where(valid[..., None], slope, 0), indices)
    value = _wide(value)
    if factor is not None:  # scales the kernel, not its bias
        value = value * _fit(_wide(factor), value.shape, site.depth)
    value = _patches(site, value) if site.kind == "convolution" else value
    inputs = arrange(value, site.inputs, rows)
    slope = arrange(slope, site.outputs, columns)
    if transposed:
        return Use(slope, inputs, transposed=True)
    if len(g.block.parts) > 1:
        inputs = jnp.concatenate([inputs, jnp.ones_like(inputs[..., :1])], axis=-1)
    return Use(inputs, slope)


def _entries(g: Group, records: dict, slopes: dict) -> tuple[Use, ...]:
    """The uses of a scale, a shift or both, summed over the positions of an example."""
    uses: list[tuple[int, jax.Array]] = []
    for slot, row in zip(g.slots, g.sites, strict=True):
        columns = []
        for site, part in zip(row, g.block.parts, strict=True):
            value, factor = records[site.path]
            slope = _wide(slopes[site.path])
            if site.kind == "scale":
                other = _wide(value)
                other = 1 / other if site.how == "div" else other
                slope = slope * _fit(other, slope.shape, site.depth)
            if factor is not None:
                slope = slope * _fit(_wide(factor), slope.shape, site.depth)
            slope = -slope if site.negated else slope
            wanted = (*part.rows, *part.columns)
            columns.append(_arrange(slope, site.outputs, site, g.examples, part, wanted))
        if g.examples is not None:
            columns = [jnp.sum(c, axis=2, keepdims=True) for c in columns]
        joined = jnp.concatenate(columns, axis=-1) if len(columns) > 1 else columns[0]
        uses.append((slot, joined))
    if g.examples is not None:  # one example's uses of one piece are one gradient
        slots = dict.fromkeys(g.slots)
        uses = [(k, sum(x for slot, x in uses if slot == k)) for k in slots]  # pyright: ignore[reportAssignmentType]
    a, b = g.block.shape[1:]
    if g.block.kind == "embedding":
        tables = [(slot, u.reshape(*u.shape[:2], a, b)) for slot, u in uses]
        return _stacked(g, [(slot, Use(None, u, _positions(u))) for slot, u in tables])
    return _stacked(g, [(slot, Use(jnp.ones_like(u[..., :1]), u)) for slot, u in uses])


def _positions(table: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(table.shape[2], dtype=jnp.int32), table.shape[:3])


def _fit(x: jax.Array, shape: Sequence[int], depth: int) -> jax.Array:
    """A recorded operand, reshaped to broadcast with the output if it is a scalar in scans."""
    return x.reshape(*x.shape, *(1,) * (len(shape) - x.ndim)) if x.ndim == depth else x


def _rows_of(site: Site, starts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rows of a look-up, and whether each exists; out of range, by the mode of the gather."""
    how = site.how
    if "one hot" in how:
        return jnp.argmax(starts, how["one hot"]), jnp.any(starts != 0, how["one hot"])
    limits = jnp.asarray(how["limits"], starts.dtype)
    within = starts <= jnp.expand_dims(limits, range(starts.ndim - 1))
    inside = jnp.all((starts >= 0) & within, axis=-1)
    clips = "CLIP" in str(how["mode"]).upper()
    valid = jnp.ones_like(inside) if clips else inside
    row = jnp.clip(starts[..., how["row"]], 0, limits[how["row"]])
    return row, valid


def _patches(site: Site, image: jax.Array) -> jax.Array:
    """The image under each position of the kernel: axes (scans, N, channels, positions, kernel)."""
    how, depth = site.how, site.depth
    front = image.shape[:depth]
    x = image.transpose(*range(depth), *(depth + i for i in how["lhs_spec"]))
    pads = [
        (low, high, inner - 1)
        for (low, high), inner in zip(how["padding"], how["lhs_dilation"], strict=True)
    ]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (depth + 2) + pads)
    kernel, strides_, dilation = how["kernel"], how["window_strides"], how["rhs_dilation"]
    rank = len(kernel)
    sizes = x.shape[depth + 2 :]
    lengths = [
        max((n - (k - 1) * d - 1) // s + 1, 0) if n > (k - 1) * d else 0
        for n, k, d, s in zip(sizes, kernel, dilation, strides_, strict=True)
    ]
    pieces = []
    for offset in itertools.product(*map(range, kernel)):
        index = tuple(
            slice(o * d, o * d + (n - 1) * s + 1 if n else o * d, s)
            for o, d, n, s in zip(offset, dilation, lengths, strides_, strict=True)
        )
        pieces.append(x[(..., *index)])
    stacked = jnp.stack(pieces, axis=-1)
    return stacked.reshape(*front, *x.shape[depth : depth + 2], *lengths[:rank], *kernel)


Key = tuple[str, int, int]


def _keys(spec: Spec, site: Site, part_factors: Axis) -> list[tuple[Key, int]]:
    """The pieces of an array's axes, in order, with their lengths."""
    found: list[tuple[Key, int]] = []
    for axis in spec:
        if isinstance(axis, int):
            atoms = labels.resolve(site.positions[axis])
            found += [(("position", axis, k), a.size) for k, a in enumerate(atoms)]
        else:
            found += [(("leaf", s, 0), n) for n, s in strides.cut(axis, part_factors)]
    return found


def _arrange(x, spec: Spec, site: Site, examples, part, wanted: Axis) -> jax.Array:
    """An array with the axes ``spec``, rearranged to ``(S, N, T, features)``."""
    fine = (*part.stacked, *part.rows, *part.columns)
    keys = _keys(spec, site, fine)
    order = {key: i for i, (key, _) in enumerate(keys)}
    atoms = {
        ("position", p, k): atom
        for p, axis in enumerate(site.positions)
        for k, atom in enumerate(labels.resolve(axis))
    }
    positions = [key for key in order if key[0] == "position"]
    positions.sort()
    if examples is None:
        first, rest = positions, []
    else:
        wanted_atoms = labels.resolve(examples)
        place = {
            key: [i for i, a in enumerate(wanted_atoms) if a is atoms[key]] for key in positions
        }
        first = sorted((k for k in positions if place[k]), key=lambda k: place[k][0])
        rest = [k for k in positions if not place[k]]
    groups = [
        [("leaf", s, 0) for _, s in part.stacked if ("leaf", s, 0) in order],
        first,
        rest,
        [("leaf", s, 0) for _, s in wanted],
    ]
    sizes = dict(keys)
    permutation = [order[key] for keys_ in groups for key in keys_]
    shape = [math.prod(sizes[key] for key in keys_) for keys_ in groups]
    return jnp.reshape(x, [n for _, n in keys]).transpose(permutation).reshape(shape)
