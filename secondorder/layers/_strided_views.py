"""Strided views: values that are a leaf transposed, reshaped, broadcast or cast.

Each axis of a view is a tuple of factors ``(size, stride)``, major first, where strides count
entries of the source in row-major order; stride 0 is a broadcast. So ``W.T`` of a ``(3, 4)`` leaf
is ``(((4, 1),), ((3, 4),))``. Axes of length one have no factors.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

Factor = tuple[int, int]
Axis = tuple[Factor, ...]


@dataclasses.dataclass(frozen=True)
class View:
    """A source after structural operations.

    Attributes:
      source: ``("leaf", index)``, or ``("site", path)`` for the output of a linear map.
      dims: one :data:`Axis` per axis.
      scans: the axes sliced off by enclosing scans, ``(identity of the scan, axis)``.
      fixed: factors of the source that were sliced, each with the index kept.
      scaled: ``""``, ``"scalar"`` or ``"array"``: kind of the factor it was multiplied by.
      pending: the site of that multiplication, used if no other site follows.
    """

    source: tuple[str, Any]
    dims: tuple[Axis, ...]
    scans: tuple[tuple[Any, Axis], ...] = ()
    fixed: tuple[tuple[Factor, int], ...] = ()
    scaled: str = ""
    pending: Any = None

    @property
    def leaf(self) -> int | None:
        return self.source[1] if self.source[0] == "leaf" else None

    def with_dims(self, dims: Iterable[Axis]) -> View:
        return dataclasses.replace(self, dims=tuple(dims))


def whole(source: tuple[str, Any], shape: Sequence[int]) -> View:
    """The view of the whole source, unchanged."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    dims = (((n, s),) if n > 1 else () for n, s in zip(shape, strides, strict=True))
    return View(source, tuple(dims))


def whole_leaf(view: View | None) -> int | None:
    """The leaf of a view with every entry once, up to a common factor; else ``None``."""
    if view is None or view.scaled == "array" or view.scans or view.fixed:
        return None
    return view.leaf if all(map(is_feature, view.dims)) else None


def length(axis: Axis) -> int:
    """The number of entries of an axis."""
    return math.prod(n for n, _ in axis)


def is_broadcast(axis: Axis) -> bool:
    """Whether the source is constant along the axis (true for length one)."""
    return all(stride == 0 for _, stride in axis)


def is_feature(axis: Axis) -> bool:
    """Whether every factor of the axis is a factor of the source."""
    return all(stride > 0 for _, stride in axis)


def regroup(factors: Iterable[Factor], sizes: Sequence[int]) -> tuple[Axis, ...] | None:
    """The factors distributed to axes of these sizes; ``None`` where a size cuts a factor."""
    queue, axes = list(factors), []
    for size in sizes:
        axis: list[Factor] = []
        while size > 1:
            if not queue:
                return None
            n, stride = queue.pop(0)
            take = math.gcd(n, size)
            if take != min(n, size):
                return None
            axis.append((take, stride * (n // take)))
            if take < n:
                queue.insert(0, (n // take, stride))
            size //= take
        axes.append(tuple(axis))
    return tuple(axes)


def reshaped(view: View, shape: Sequence[int]) -> View | None:
    """The view in another shape; ``None`` where the shape cuts a factor."""
    dims = regroup(itertools.chain(*view.dims), shape)
    return None if dims is None else view.with_dims(dims)


def sliced(view: View, starts: Sequence[int], sizes: Sequence[int]) -> View | None:
    """One of equal pieces along each axis; ``None`` where the pieces are not equal."""
    dims, fixed = [], list(view.fixed)
    for axis, start, size in zip(view.dims, starts, sizes, strict=True):
        whole_ = length(axis)
        if size == 0 or whole_ % size or start % size:
            return None
        parts = regroup(axis, (whole_ // size, size))
        if parts is None:
            return None
        index = start // size
        for n, stride in reversed(parts[0]):
            if stride:
                fixed.append(((n, stride), index % n))
            index //= n
        dims.append(parts[1])
    return dataclasses.replace(view, dims=tuple(dims), fixed=tuple(fixed))


def digits(view: View, fine: Axis) -> dict[int, int]:
    """The index kept by slices in each finer factor, by its stride."""
    return {
        s: (index * stride // s) % m
        for (n, stride), index in view.fixed
        for m, s in cut(((n, stride),), fine)
    }


def broadcast(view: View, shape: Sequence[int], places: Sequence[int]) -> View:
    """``broadcast_in_dim``: axis i of the view becomes axis ``places[i]``."""
    dims: list[Axis] = [((n, 0),) if n > 1 else () for n in shape]
    for axis, place in zip(view.dims, places, strict=True):
        if length(axis) == shape[place]:
            dims[place] = axis
    return view.with_dims(dims)


def aligned(view: View, shape: Sequence[int]) -> View:
    """The view broadcast to the shape of an elementwise operation."""
    return broadcast(view, shape, range(len(shape)) if view.dims else ())


def refine(factors: Iterable[Factor], size: int) -> Axis | None:
    """Common refinement of the factors of a source of this size, row-major.

    ``None`` where factors overlap: two uses cut one axis at places that do not divide one another.
    """
    cuts = {1, size} | {c for n, s in factors if n > 1 for c in (s, n * s)}
    ordered = sorted(cuts)
    if any(b % a for a, b in itertools.pairwise(ordered)):
        return None
    return tuple((b // a, a) for a, b in itertools.pairwise(ordered))[::-1]


def cut(axis: Axis, fine: Axis) -> Axis:
    """The axis in the finer factors of :func:`refine`."""
    found: list[Factor] = []
    for n, stride in axis:
        found += [(m, s) for m, s in fine if stride <= s < n * stride]
    return tuple(found)


def pair(first: Axis, second: Axis) -> list[tuple[int, int, int]] | None:
    """Common pieces ``(size, first stride, second stride)`` of two factorings of one axis."""
    a, b, pieces = list(first), list(second), []
    while a and b:
        (n, s), (m, t) = a.pop(0), b.pop(0)
        take = min(n, m)
        if max(n, m) % take:
            return None
        pieces.append((take, s * (n // take), t * (m // take)))
        if n > take:
            a.insert(0, (n // take, s))
        if m > take:
            b.insert(0, (m // take, t))
    return None if a or b else pieces
