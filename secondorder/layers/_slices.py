"""Operations that act on each slice of an axis alone.

The slice of a result along an axis is the same operation on slices of its operands. A slice keeps
its axis, with length one, so that the numbers of axes in an operation's parameters stay valid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from secondorder.layers._jaxpr import is_literal


class Part(NamedTuple):
    """The entries ``start, …, start + length − 1`` along an axis."""

    axis: int
    start: int
    length: int


class Together(Exception):
    """An operation mixes the slices, or has no rule here."""


class Cut(Exception):
    """A part crosses the boundary of two concatenated arrays; ``places``, relative to its start."""

    def __init__(self, places: list[int]):
        self.places = places


Needs = tuple[list[Part | None], dict[str, Any]]  # of each operand; changed parameters

ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil
    clamp convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1
    floor ge gt igamma igammac imag integer_pow is_finite le lgamma log log1p logistic lt max min
    mul ne neg nextafter not or polygamma pow real reduce_precision regularized_incomplete_beta rem
    round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt
    square stop_gradient sub tan tanh xor zeta complex conj""".split()
)


def _elementwise(eqn: Any, part: Part) -> Needs:
    # Scalars and axes of length one are broadcast.
    length = eqn.outvars[0].aval.shape[part.axis]
    is_along = lambda shape: shape and shape[part.axis] == length
    return [part if is_along(v.aval.shape) else None for v in eqn.invars], {}


def _broadcast(eqn: Any, part: Part) -> Needs:
    places, (operand, *dynamic) = eqn.params["broadcast_dimensions"], eqn.invars
    if dynamic:
        raise Together
    changed = {"shape": _with(eqn.params["shape"], part.axis, 1)}
    if part.axis in places:
        axis = places.index(part.axis)
        if operand.aval.shape[axis] != 1:
            return [part._replace(axis=axis)], changed
    return [None], changed


def _transpose(eqn: Any, part: Part) -> Needs:
    return [part._replace(axis=eqn.params["permutation"][part.axis])], {}


def _reshape(eqn: Any, part: Part) -> Needs:
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if eqn.params.get("dimensions") is not None or len(eqn.invars) > 1:
        raise Together
    major = math.prod(after[: part.axis])
    for axis, length in enumerate(before):
        if math.prod(before[:axis]) == major and length == after[part.axis]:
            return [part._replace(axis=axis)], {"new_sizes": _with(after, part.axis, 1)}
    raise Together


def _squeeze(eqn: Any, part: Part) -> Needs:
    gone = {i % eqn.invars[0].aval.ndim for i in eqn.params["dimensions"]}
    return _without(eqn, part, gone)


def _reduce(eqn: Any, part: Part) -> Needs:
    return _without(eqn, part, set(eqn.params["axes"]))


def _without(eqn: Any, part: Part, gone: set[int]) -> Needs:
    kept = [i for i in range(eqn.invars[0].aval.ndim) if i not in gone]
    return [part._replace(axis=kept[part.axis])], {}


def _dot_general(eqn: Any, part: Part) -> Needs:
    contracted, batch = eqn.params["dimension_numbers"]
    if part.axis < len(batch[0]):
        return [part._replace(axis=axes[part.axis]) for axes in batch], {}
    place = part.axis - len(batch[0])
    needs: list[Part | None] = [None, None]
    for k, v in enumerate(eqn.invars):
        free = [i for i in range(v.aval.ndim) if i not in (*contracted[k], *batch[k])]
        if 0 <= place < len(free):
            needs[k] = part._replace(axis=free[place])
        place -= len(free)
    return needs, {}


def _convolution(eqn: Any, part: Part) -> Needs:
    numbers = eqn.params["dimension_numbers"]
    if part.axis != numbers.out_spec[0] or eqn.params["batch_group_count"] != 1:
        raise Together
    return [part._replace(axis=numbers.lhs_spec[0]), None], {}


def _concatenate(eqn: Any, part: Part) -> Needs:
    if part.axis != eqn.params["dimension"]:
        return [part] * len(eqn.invars), {}
    raise Together  # the reader goes to the one operand that has the part


def _stack(eqn: Any, part: Part) -> Needs:
    new = eqn.params["axis"]
    if part.axis == new:
        raise Together
    return [part._replace(axis=part.axis - (part.axis > new))] * len(eqn.invars), {}


def _along_others(name: str) -> Callable[[Any, Part], Needs]:
    """The rule of an operation along one or several other axes, in the parameter ``name``."""

    def rule(eqn: Any, part: Part) -> Needs:
        own = eqn.params[name]
        if part.axis in (own if isinstance(own, tuple | list) else (own,)):
            raise Together
        return [part if v.aval.ndim else None for v in eqn.invars], {}

    return rule


def _slice(eqn: Any, part: Part) -> Needs:
    params, axis = eqn.params, part.axis
    if params["strides"] is not None and params["strides"][axis] != 1:
        raise Together
    start = params["start_indices"][axis] + part.start
    changed = {
        "start_indices": _with(params["start_indices"], axis, 0),
        "limit_indices": _with(params["limit_indices"], axis, 1),
    }
    return [part._replace(start=start)], changed


def _dynamic_slice(eqn: Any, part: Part) -> Needs:
    sizes = eqn.params["slice_sizes"]
    # A slice over the whole axis begins at zero, for JAX clamps its start.
    if sizes[part.axis] != eqn.invars[0].aval.shape[part.axis]:
        raise Together
    needs: list[Part | None] = [part, *[None] * (len(eqn.invars) - 1)]
    return needs, {"slice_sizes": _with(sizes, part.axis, 1)}


def _pad(eqn: Any, part: Part) -> Needs:
    if tuple(eqn.params["padding_config"][part.axis]) != (0, 0, 0):
        raise Together
    return [part, None], {}


def _gather(eqn: Any, part: Part) -> Needs:
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    operand, batch = eqn.invars[0].aval, numbers.start_indices_batching_dims
    if part.axis not in numbers.offset_dims:  # an axis of the indices, which come before the last
        outer = [i for i in range(eqn.outvars[0].aval.ndim) if i not in numbers.offset_dims]
        there = part._replace(axis=outer.index(part.axis))
        if there.axis not in batch:
            return [None, there], {}
        axis = numbers.operand_batching_dims[batch.index(there.axis)]
        return [part._replace(axis=axis), there], {}
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [i for i in range(operand.ndim) if i not in gone]
    axis = kept[numbers.offset_dims.index(part.axis)]
    if sizes[axis] != operand.shape[axis] or axis in numbers.start_index_map:
        raise Together
    return [part._replace(axis=axis), None], {"slice_sizes": _with(sizes, axis, 1)}


def _batched(eqn: Any, part: Part) -> Needs:
    """Of matrices in the last two axes."""
    if part.axis >= eqn.outvars[0].aval.ndim - 2:
        raise Together
    return [part] * len(eqn.invars), {}


RULES: dict[str, Callable[[Any, Part], Needs]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(["cumsum", "cumprod", "cummax", "cummin"], _along_others("axis")),
    "cumlogsumexp": _along_others("axis"),
    **dict.fromkeys(["cholesky", "triangular_solve"], _batched),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _along_others("dimensions"),
    "slice": _slice,
    "sort": _along_others("dimension"),
    "split": _along_others("axis"),
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
}


def needed(eqn: Any, part: Part) -> Needs:
    """The parts of the operands of which an operation makes a part of its results.

    Raises:
      Together: the operation mixes the slices along this axis, or has no rule.
    """
    name = eqn.primitive.name
    if name in RULES:
        return RULES[name](eqn, part)
    if name.startswith(("reduce_", "argm")) and "axes" in eqn.params and len(eqn.invars) == 1:
        return _reduce(eqn, part)
    raise Together


def within(eqn: Any, part: Part) -> tuple[int, Part]:
    """The operand of a concatenation along the axis of ``part`` in which it lies.

    Raises:
      Cut: it lies in more than one.
    """
    begin = 0
    cuts = []
    for k, v in enumerate(eqn.invars):
        end = begin + v.aval.shape[part.axis]
        if begin <= part.start and part.start + part.length <= end:
            return k, part._replace(start=part.start - begin)
        cuts.append(end - part.start)
        begin = end
    raise Cut([c for c in cuts if 0 < c < part.length])


def is_along(eqn: Any, part: Part) -> bool:
    """Whether an operation concatenates along the axis of ``part``."""
    return eqn.primitive.name == "concatenate" and eqn.params["dimension"] == part.axis


def depends(jaxpr: Any, inputs: list[bool]) -> set[Any]:
    """The variables that depend on the inputs."""
    found = {v for v, yes in zip(jaxpr.invars, inputs, strict=True) if yes}
    for eqn in jaxpr.eqns:
        if any(not is_literal(v) and v in found for v in eqn.invars):
            found.update(eqn.outvars)
    return found


def _with(values: Any, place: int, value: int) -> tuple[int, ...]:
    return tuple(value if i == place else x for i, x in enumerate(values))
