"""Linear uses of a parameter (sites), or the reason there is none.

A site is one operation ``y = x · W`` (or ``x ∘ g``, ``x + b``) in the program. It assigns factors
of the leaf (:mod:`~._strided_views`) to axes of the recorded value and of the output; every other
axis of the output is a position, over which the gradient sums:

=============  =====================  ==========================  ===========================
kind           recorded               stacked (S)                 rows (a), columns (b)
=============  =====================  ==========================  ===========================
dense          the other operand      shared batch axes           contracted, free axes
convolution    the image              groups                      kernel and channels, features
embedding      the indices            batched look-ups            the indexed axis, the others
scale          the other operand                                  none, all of the leaf
shift          nothing                                            none, all of the leaf
=============  =====================  ==========================  ===========================
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from secondorder.layers import _axis_labels as labels
from secondorder.layers import _strided_views as strides
from secondorder.layers._strided_views import Axis, View

Spec = tuple[Axis | int, ...]  # per axis: factors of the leaf, or the number of a position


@dataclasses.dataclass(frozen=True)
class Scan:
    """A scan around an operation, with its axis."""

    identity: Any
    length: int
    atoms: labels.Atoms


@dataclasses.dataclass(frozen=True)
class Site:
    """One linear use of a leaf.

    Attributes:
      path: numbers of equations down to its own, outermost first.
      kind: see the table above.
      view: the view of the leaf that is the operand.
      operand: number of the recorded operand, if any.
      inputs: role of each axis of the recorded value (for a convolution: of its patches).
      outputs: role of each axis of the output; scans come first in both.
      positions: the atoms of each position.
      stacked, rows, columns: the factors of the leaf in each role.
      shape, dtype: of the output, with the scans.
      how: parameters of the operation that are needed again.
      negated: whether the leaf is subtracted.
      depth: number of scans around it.
      recorded: the path where the operand is recorded, if it is not ``path``.
    """

    path: tuple[int, ...]
    kind: str
    view: View
    operand: int | None
    inputs: Spec
    outputs: Spec
    positions: tuple[labels.Atoms, ...]
    stacked: Axis
    rows: Axis
    columns: Axis
    shape: tuple[int, ...] = ()
    dtype: Any = None
    how: Any = None
    negated: bool = False
    depth: int = 0
    recorded: tuple[int, ...] = ()

    @property
    def leaf(self) -> int:
        return self.view.source[1]


def within(site: Site, scans: Sequence[Scan]) -> Site:
    """The site with the axes of the scans around it in front of its own."""
    prefix: list[Axis | int] = []
    positions, stacked = list(site.positions), []
    for scan in scans:
        axis = dict(site.view.scans).get(scan.identity)
        if axis is None:
            prefix.append(len(positions))
            positions.append(scan.atoms)
        else:
            prefix.append(axis)
            stacked += axis
    return dataclasses.replace(
        site,
        inputs=(*prefix, *site.inputs),
        outputs=(*prefix, *site.outputs),
        positions=tuple(positions),
        stacked=(*stacked, *site.stacked),
        shape=(*(s.length for s in scans), *site.shape),
        depth=len(scans),
    )


def _chain(axes: Sequence[Axis]) -> Axis:
    return tuple(itertools.chain(*axes))


def _ordered(axis: Axis) -> bool:
    """Whether the factors of the axis are in the leaf's own order."""
    steps = [stride for _, stride in axis]
    return steps == sorted(steps, reverse=True)


REPEATED = "it is repeated along an axis that its product sums over or returns"


def dense(path, params: Any, view: View, place: int, axes: Sequence, shape) -> Site | str:
    """``dot_general`` with the leaf as operand ``place``; ``axes``: the operands' atoms."""
    contracted, batch = params["dimension_numbers"]
    other = 1 - place
    x_axes = axes[other]
    inputs: list[Axis | int | None] = [None] * len(x_axes)
    positions: list[labels.Atoms] = []
    rows, stacked, batch_specs = [], [], []
    for i, j in zip(contracted[place], contracted[other], strict=True):
        inputs[j] = view.dims[i]
        rows.append(view.dims[i])
    for i, j in zip(batch[place], batch[other], strict=True):
        axis = view.dims[i]
        if strides.is_broadcast(axis):
            inputs[j] = len(positions)
            positions.append(x_axes[j])
        else:
            inputs[j] = axis
            stacked.append(axis)
        batch_specs.append(inputs[j])
    for j, spec in enumerate(inputs):
        if spec is None:
            inputs[j] = len(positions)
            positions.append(x_axes[j])
    free = lambda k, n: [i for i in range(n) if i not in (*contracted[k], *batch[k])]
    x_free = [inputs[j] for j in free(other, len(x_axes))]
    w_free = [view.dims[i] for i in free(place, len(view.dims))]
    if not all(map(strides.is_feature, [*rows, *stacked, *w_free])):
        return REPEATED
    outer = [*w_free, *x_free] if place == 0 else [*x_free, *w_free]
    outputs = (*batch_specs, *outer)
    roles = _chain(stacked), _chain(rows), _chain(w_free)
    return Site(path, "dense", view, other, tuple(inputs), outputs, tuple(positions), *roles)  # pyright: ignore[reportArgumentType]


def looked_up(site: Site, params: Any, place: int, one_hot: int) -> Site:
    """The site of a product with one-hot vectors, as a look-up if it sums over their axis."""
    contracted, _ = params["dimension_numbers"]
    if tuple(contracted[1 - place]) != (one_hot,) or not _ordered(site.rows):
        return site
    inputs = tuple(spec for i, spec in enumerate(site.inputs) if i != one_hot)
    how = {"one hot": one_hot - len(site.inputs)}  # from the end: scans come in front
    return dataclasses.replace(site, kind="embedding", inputs=inputs, how=how)


def convolution(path, params: Any, view: View, place: int, axes: Sequence, shape) -> Site | str:
    """``conv_general_dilated`` with the leaf as its kernel; ``axes``: operands', then output's."""
    if place == 0:
        return "it is the image of a convolution, not its kernel"
    if params["batch_group_count"] != 1:
        return "its convolution groups the batch"
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    image, out = axes[0], axes[2]
    features = view.dims[numbers.rhs_spec[0]]
    parts = strides.regroup(features, (groups, strides.length(features) // groups))
    channels, kernel = view.dims[numbers.rhs_spec[1]], [view.dims[i] for i in numbers.rhs_spec[2:]]
    if parts is None or not all(map(strides.is_feature, [features, channels, *kernel])):
        return REPEATED
    spatial = numbers.out_spec[2:]
    positions = (image[numbers.lhs_spec[0]], *(out[i] for i in spatial))
    numbered = list(range(1, len(positions)))
    inputs = (0, (*parts[0], *channels), *numbered, *kernel)
    outputs: list[Axis | int] = [0] * len(shape)
    outputs[numbers.out_spec[1]] = (*parts[0], *parts[1])
    for place_, k in zip(spatial, numbered, strict=True):
        outputs[place_] = k
    roles = parts[0], (*_chain(kernel), *channels), parts[1]
    sizes = tuple(strides.length(axis) for axis in kernel)
    how = {k: params[k] for k in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")}
    how |= {"lhs_spec": numbers.lhs_spec, "kernel": sizes}
    return Site(path, "convolution", view, 0, inputs, tuple(outputs), positions, *roles, how=how)


def embedding(path, params: Any, view: View, place: int, axes: Sequence, shape) -> Site | str:
    """``gather`` of whole rows of the leaf, along one axis of it."""
    if place != 0 or len(axes) < 2:
        return "it is used as an index"
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    lengths = [strides.length(axis) for axis in view.dims]
    indexed = [i for i in numbers.start_index_map if sizes[i] != lengths[i]]
    if len(indexed) != 1 or sizes[indexed[0]] != 1:
        return "what is looked up in it is not rows along one axis"
    (row,) = indexed
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [i for i in range(len(lengths)) if i not in gone]
    batching = zip(numbers.start_indices_batching_dims, numbers.operand_batching_dims, strict=True)
    stacked = {j: view.dims[i] for j, i in batching}
    columns = [view.dims[i] for i in kept if i != row]
    if not _ordered(view.dims[row]):
        return "the axis that is looked up is made of several, in another order than the leaf's"
    if not all(map(strides.is_feature, [view.dims[row], *columns, *stacked.values()])):
        return REPEATED
    indices = axes[1][:-1]
    inputs = tuple(stacked.get(k, k) for k in range(len(indices)))
    outer = iter(inputs)
    outputs: list[Axis | int] = [
        () if i in numbers.offset_dims else next(outer) for i in range(len(shape))
    ]
    for place_, i in zip(numbers.offset_dims, kept, strict=True):
        outputs[place_] = () if i == row else view.dims[i]
    roles = _chain(list(stacked.values())), view.dims[row], _chain(columns)
    limits = [lengths[i] - sizes[i] for i in numbers.start_index_map]
    how = {"row": numbers.start_index_map.index(row), "limits": limits, "mode": params["mode"]}
    return Site(path, "embedding", view, 1, inputs, tuple(outputs), tuple(indices), *roles, how=how)


def elementwise(path, kind: str, view: View, operand: int | None, out, shape) -> Site | str:
    """A scale ``x ∘ g`` or a shift ``x + b``; ``out``: the output's atoms."""
    view = strides.aligned(view, shape)
    outputs: list[Axis | int] = []
    positions: list[labels.Atoms] = []
    for axis, atoms in zip(view.dims, out, strict=True):
        if strides.is_broadcast(axis):
            outputs.append(len(positions))
            positions.append(atoms)
        elif strides.is_feature(axis):
            outputs.append(axis)
        else:
            return "it is repeated and then reshaped"
    columns = _chain([a for a in outputs if not isinstance(a, int)])
    return Site(path, kind, view, operand, (), tuple(outputs), tuple(positions), (), (), columns)


def after(site: Site, path, product: View, out, shape, dtype) -> Site | None:
    """The site of a look-up, tapped after its output was added to something with more axes.

    The same rows for all examples (such as of positions) get the examples' axis there. ``None``
    where the axes of the output are not whole axes of the sum.
    """
    product = strides.aligned(product, shape)
    own = strides.whole(("site", None), site.shape[site.depth :]).dims
    known = dict(zip(own, site.outputs[site.depth :], strict=True))
    known.pop((), None)
    specs: list[Axis | int] = []
    positions = list(site.positions)
    for axis, atoms in zip(product.dims, out, strict=True):
        if strides.is_broadcast(axis):
            specs.append(len(positions))
            positions.append(atoms)
        elif axis in known:
            specs.append(known.pop(axis))
        else:
            return None
    if known:
        return None
    return dataclasses.replace(
        site,
        path=path,
        recorded=site.path,
        outputs=(*site.outputs[: site.depth], *specs),
        positions=tuple(positions),
        shape=(*site.shape[: site.depth], *shape),
        dtype=dtype,
    )


def bias_of(
    site: Site, product: View, bias: View, shape
) -> tuple[tuple[int, int, int], ...] | None:
    """The match of factors of kernel and bias, if ``product + bias`` is a layer with its bias.

    ``product`` is a view of the output of the site. The bias must run along exactly the axes of the
    output that the kernel has, along the same scans and in the same slice.

    Returns:
      ``(size, stride in the kernel, stride in the bias)`` for every factor, or ``None``.
    """
    kernel_scans, bias_scans = dict(site.view.scans), dict(bias.scans)
    if kernel_scans.keys() != bias_scans.keys():
        return None
    matched: list[tuple[int, int, int]] = []
    if len(site.view.fixed) != len(bias.fixed):
        return None
    for (mine, i), (theirs, j) in zip(site.view.fixed, bias.fixed, strict=True):
        if (mine[0], i) != (theirs[0], j):
            return None
        matched.append((mine[0], mine[1], theirs[1]))
    for key, axis in kernel_scans.items():
        pieces = strides.pair(axis, bias_scans[key])
        if pieces is None:
            return None
        matched += pieces
    product, bias = strides.aligned(product, shape), strides.aligned(bias, shape)
    seen: list[tuple[int, int, int]] = []
    for mine, theirs in zip(product.dims, bias.dims, strict=True):
        pieces = strides.pair(mine, theirs)
        if pieces is None:
            return None
        seen += pieces
    own = site.shape[site.depth :]
    total = math.prod(own)
    if any(s == 0 for _, s, _ in seen) or math.prod(n for n, *_ in seen) != total:
        return None
    runs: list[tuple[int, int, int | None]] = []  # factors of the output, with the kernel's strides
    for axis, spec in zip(
        strides.whole(("site", None), own).dims, site.outputs[site.depth :], strict=True
    ):
        if isinstance(spec, int):
            runs += [(n, s, None) for n, s in axis]
        else:
            runs += [(n, s, t) for n, t, s in strides.pair(spec, axis) or ()]
    fine = strides.refine([(n, s) for n, s, _ in [*runs, *seen]], total)
    if fine is None:
        return None
    in_kernel, in_bias = _follow(runs, fine), _follow(seen, fine)
    for n, s in fine:
        kernel, own_ = in_kernel[s], in_bias[s]
        if (kernel is None) != (own_ == 0):
            return None
        if kernel is not None:
            matched.append((n, kernel, own_))
    return tuple(matched)


def _follow(runs: Sequence[tuple[int, int, Any]], fine: Axis) -> dict[int, Any]:
    """Stride in one source → stride in another, for every finer factor."""
    return {
        s: None if other is None else other * (s // stride)
        for n, stride, other in runs
        for _, s in strides.cut(((n, stride),), fine)
    }
