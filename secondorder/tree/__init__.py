"""Vector operations on trees of parameters, leaf by leaf.

Nothing here flattens a tree, so sharded leaves stay where they are; only small leaves are joined
before they are summed.
"""

from secondorder.tree._algebra import (
    add,
    axpy,
    nan_unless,
    negative,
    only,
    power_of_two,
    rows_like,
    running_mean,
    scale,
    times,
    where,
    zeros_like,
)
from secondorder.tree._checks import check_match, check_real, spread
from secondorder.tree._dtypes import (
    accumulation_dtype,
    accumulator,
    cast,
    dtype,
    is_complex,
    is_real,
    joined,
    leaf_dtype,
    together,
)
from secondorder.tree._parts import Parts, parts, whole
from secondorder.tree._random import folded, random_normal, random_signs
from secondorder.tree._sums import all_finite, max_abs, norm, size, total, vdot
from secondorder.tree._types import Params, Real, Scalar

__all__ = [
    "Params",
    "Parts",
    "Real",
    "Scalar",
    "accumulation_dtype",
    "accumulator",
    "add",
    "all_finite",
    "axpy",
    "cast",
    "check_match",
    "check_real",
    "dtype",
    "folded",
    "is_complex",
    "is_real",
    "joined",
    "leaf_dtype",
    "max_abs",
    "nan_unless",
    "negative",
    "norm",
    "only",
    "parts",
    "power_of_two",
    "random_normal",
    "random_signs",
    "rows_like",
    "running_mean",
    "scale",
    "size",
    "spread",
    "times",
    "together",
    "total",
    "vdot",
    "where",
    "whole",
    "zeros_like",
]
