"""State of the jaxpr analysis: facts about values, and the linear uses found."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np

from secondorder.layers import _axis_labels as labels
from secondorder.layers._jaxpr import is_literal
from secondorder.layers._strided_views import View
from secondorder.layers._uses import Scan, Site

# Calls whose inner program is read as if it were inlined.
CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
# Rearrangements: every entry of a leaf stays one entry.
SAME = {"convert_element_type", "copy", "copy_p", "name", "reshard", "sharding_constraint"}
MOVES = {"reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim", *SAME}
PIECES = {"slice", "dynamic_slice", "split"}
OWN_RULE = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
COMPLEX = "it enters complex arithmetic, which is not followed"
WHY = {
    "scan": "a scan carries it from step to step",
    "while": "it is used inside a while loop",
    "cond": "it is used inside a branch of a cond",
    **dict.fromkeys(OWN_RULE, "it enters a function with a derivative rule of its own"),
    **dict.fromkeys(
        ("slice", "dynamic_slice", "split"),
        "it is cut into pieces that are not equal, or not known beforehand",
    ),
    **dict.fromkeys(("concatenate", "pad"), "it is joined to something else before its products"),
}


@dataclasses.dataclass(frozen=True)
class Info:
    """Facts about one value.

    Attributes:
      view: the leaf, or the output of a site, of which it is a view.
      constant: whether it depends on constants of the program alone.
      gain: path of the scale whose output it is, up to factors.
      counts: the axis along which its entries are 0, 1, 2, …
      one_hot: the axis along which at most one entry is 1, the others 0.
    """

    view: View | None = None
    constant: bool = False
    gain: tuple[int, ...] | None = None
    counts: int | None = None
    one_hot: int | None = None


@dataclasses.dataclass
class Scope:
    """One (inner) program: its path, the scans around it, the facts about its values."""

    path: tuple[int, ...]
    scans: tuple[Scan, ...]
    uses: collections.Counter
    infos: dict = dataclasses.field(default_factory=dict)
    axes: dict = dataclasses.field(default_factory=dict)

    def info(self, atom: Any) -> Info:
        return Info(constant=True) if is_literal(atom) else self.infos[atom]

    def axes_of(self, atom: Any) -> labels.Axes:
        return labels.fresh(np.shape(atom.val)) if is_literal(atom) else self.axes[atom]


@dataclasses.dataclass
class Reading:
    """The uses of all leaves in a program.

    Attributes:
      sites: every linear use, by path.
      biases: path of a shift → path of the product it is added to, and the match of their factors.
      gains: path of a shift → path of the scale before it.
      later: path of a look-up → the same use, tapped where its output was added to something.
      scaling: path of an equation that scales a leaf before its use, or moves a scaled leaf → the
        number of the operand with the leaf.
      broken: leaf → reason why it is a fallback.
      returned: leaf → numbers of the outputs that equal it up to a factor.
      examples: the atoms of the examples' axis, ``None`` where the outputs have no common one.
    """

    sites: dict[tuple[int, ...], Site]
    biases: dict[tuple[int, ...], tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]]]
    gains: dict[tuple[int, ...], tuple[int, ...]]
    later: dict[tuple[int, ...], Site]
    scaling: dict[tuple[int, ...], int]
    broken: dict[int, str]
    returned: dict[int, list[int]]
    examples: labels.Atoms | None = None

    def drop(self, info: Info, reason: str) -> None:
        """Mark the leaf of a view as a fallback: the analysis cannot follow the view further."""
        if info.view is None or info.view.leaf is None:
            return
        if info.view.pending is not None:  # the multiplication before it is the use
            self.sites[info.view.pending.path] = info.view.pending
        else:
            self.broken.setdefault(info.view.leaf, reason)

    def followed(self, info: Info, uses: int) -> Info:
        """``info``, followed to one use only for outputs of products and leaves scaled by data."""
        view = info.view
        if view is None or uses == 1 or (view.leaf is not None and view.pending is None):
            return info
        return self.settled(info) if view.pending else dataclasses.replace(info, view=None)

    def settled(self, info: Info) -> Info:
        """``info`` of a view scaled by data, or added to it, as the output of that operation."""
        if info.view is None or info.view.pending is None:
            return info
        self.drop(info, "")
        pending = info.view.pending
        return Info(gain=pending.path if pending.kind == "scale" else None)

    def unscaled(self, info: Info, reason: str) -> Info:
        """``info`` without a scaled view, which is not followed into or out of inner programs."""
        if info.view is None or not info.view.scaled:
            return info
        self.drop(info, reason)
        return dataclasses.replace(info, view=None)
