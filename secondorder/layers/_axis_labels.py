"""Identification of axes across a program's values, by unification.

An axis is a list of atoms, major first, whose sizes multiply to its length. Each operation unifies
axes (the rows of ``x`` and of ``x @ W``); reshapes split atoms. In the end the examples' axis is
the outputs' leading axis, at every place in the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Atoms = list["Atom"]
Axes = tuple[Atoms, ...]


class Atom:
    """A factor of an axis; ``link``: the atoms that it was unified with or split into."""

    __slots__ = ("link", "size")

    def __init__(self, size: int):
        self.size = size
        self.link: tuple[Atom, ...] | None = None


def fresh(shape: Sequence[int]) -> Axes:
    """New axes of a shape, unified with no other."""
    return tuple([Atom(n)] if n != 1 else [] for n in shape)


def resolve(axis: Atoms) -> Atoms:
    """The axis in its current atoms, all links followed."""
    found: Atoms = []
    stack = axis[::-1]
    while stack:
        atom = stack.pop()
        if atom.link is None:
            found.append(atom)
            continue
        if len(atom.link) == 1 and atom.link[0].link is not None:
            atom.link = atom.link[0].link  # shortens the chain of links
        stack += atom.link[::-1]
    return found


def unify(first: Atoms, second: Atoms) -> None:
    """Unify two axes, as far as their atoms divide one another."""
    a, b = resolve(first), resolve(second)
    while a and b:
        x, y = a.pop(0), b.pop(0)
        if x.link is not None or y.link is not None:  # split or linked meanwhile
            a, b = resolve([x]) + a, resolve([y]) + b
        elif x is y:
            pass
        elif x.size == y.size:
            x.link = (y,)
        else:
            large, small = (x, y) if x.size > y.size else (y, x)
            if small.size == 0 or large.size % small.size:
                return
            large.link = (Atom(small.size), Atom(large.size // small.size))
            a, b = resolve([x]) + a, resolve([y]) + b


def regroup(axes: Axes, shape: Sequence[int]) -> Axes:
    """The axes of a reshaped value."""
    queue = [atom for axis in axes for atom in resolve(axis)]
    if 0 in shape:
        return fresh(shape)
    found = []
    for i, size in enumerate(shape):
        axis: Atoms = []
        while size > 1:
            if not queue:
                return (*found, *fresh(shape[i:]))
            atom = queue.pop(0)
            if atom.link is not None:
                queue = resolve([atom]) + queue
                continue
            take = math.gcd(atom.size, size)
            if take != min(atom.size, size):
                return (*found, *fresh(shape[i:]))
            if take < atom.size:
                atom.link = (Atom(take), Atom(atom.size // take))
                queue = list(atom.link) + queue
                continue
            axis.append(atom)
            size //= take
        found.append(axis)
    return tuple(found)


# ------------------------------------------------------------- the axes of each operation's result


def _transpose(params: Any, operands: list[Axes], shape: Sequence[int]) -> Axes:
    return tuple(operands[0][i] for i in params["permutation"])


def _reshape(params: Any, operands: list[Axes], shape: Sequence[int]) -> Axes:
    order = params.get("dimensions")  # of a reshape that transposes first
    axes = operands[0]
    if order is not None and params.get("new_sizes") is not None:
        axes = tuple(axes[i] for i in order)
    return regroup(axes, shape)


def _broadcast(params: Any, operands: list[Axes], shape: Sequence[int]) -> Axes:
    axes = list(fresh(shape))
    for axis, place in zip(operands[0], params["broadcast_dimensions"], strict=True):
        if axis and math.prod(a.size for a in resolve(axis)) == shape[place]:
            axes[place] = axis
    return tuple(axes)


def _dot_general(params: Any, operands: list[Axes], shape: Sequence[int]) -> Axes:
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    x, y = operands
    for i, j in [*zip(left, right, strict=True), *zip(left_batch, right_batch, strict=True)]:
        unify(x[i], y[j])
    free = lambda axes, used: [a for i, a in enumerate(axes) if i not in used]
    batch = [x[i] for i in left_batch]
    return (*batch, *free(x, (*left, *left_batch)), *free(y, (*right, *right_batch)))


def _convolution(params: Any, operands: list[Axes], shape: Sequence[int]) -> Axes:
    numbers, axes = params["dimension_numbers"], list(fresh(shape))
    if params["batch_group_count"] == 1:
        axes[numbers.out_spec[0]] = operands[0][numbers.lhs_spec[0]]
    return tuple(axes)


def _gather(params: Any, operands: list[Axes], shape: Sequence[int]) -> Axes:
    numbers = params["dimension_numbers"]
    operand, indices = operands
    axes = list(fresh(shape))
    outer = [i for i in range(len(shape)) if i not in numbers.offset_dims]
    for place, axis in zip(outer, indices[:-1], strict=True):
        axes[place] = axis
    batching = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    for i, j in batching:
        unify(operand[i], indices[j])
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [i for i in range(len(operand)) if i not in gone]
    for place, i in zip(numbers.offset_dims, kept, strict=True):
        if params["slice_sizes"][i] == math.prod(a.size for a in resolve(operand[i])):
            axes[place] = operand[i]
    return tuple(axes)


def _alike(params: Any, operands: list[Axes], shape: Sequence[int]) -> Axes:
    """Elementwise and unknown operations: axes of equal place and length are unified."""
    axes = fresh(shape)
    for operand in operands:
        same_rank = len(operand) == len(shape)
        for mine, theirs in zip(axes, operand if same_rank else operand[:1], strict=False):
            sizes = [math.prod(a.size for a in resolve(axis)) for axis in (mine, theirs)]
            if sizes[0] == sizes[1]:
                unify(mine, theirs)
    return axes


RULES: dict[str, Callable[[Any, list[Axes], Sequence[int]], Axes]] = {
    "broadcast_in_dim": _broadcast,
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "expand_dims": _reshape,
    "gather": _gather,
    "iota": lambda params, operands, shape: fresh(shape),
    "reshape": _reshape,
    "squeeze": _reshape,
    "transpose": _transpose,
}


def relate(name: str, params: Any, operands: list[Axes], shape: Sequence[int]) -> Axes:
    """The axes of the result of an operation; unifies axes of its operands."""
    if name in RULES:
        return RULES[name](params, operands, shape)
    if "axes" in params and len(operands[0]) == len(shape) + len(params["axes"]):  # reductions
        kept = [a for i, a in enumerate(operands[0]) if i not in params["axes"]]
        return tuple(kept)
    if name.startswith("scatter"):  # indices and updates have axes of their own
        operands = operands[:1]
    return _alike(params, operands, shape)
