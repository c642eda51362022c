"""Blocks from the uses of single leaves: one layout per leaf, kernels joined with biases."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from secondorder.layers import _axis_labels as labels
from secondorder.layers import _strided_views as strides
from secondorder.layers._analysis import Reading
from secondorder.layers._blocks import Block, Part
from secondorder.layers._strided_views import Axis
from secondorder.layers._uses import Site

Match = tuple[tuple[int, int, int], ...]
MIXED = "it enters products and is also added or multiplied entry by entry, with no common factors"
UNKNOWN = "the examples' axis is not known here, so every position counts as an example"


@dataclasses.dataclass(frozen=True)
class Group:
    """A block with the sites of its leaves, for one program.

    Attributes:
      sites: for each use, the site of each leaf; a joined bias has its kernel's.
      transposed: for each use, whether its rows are the block's columns.
      slots: for each use, the index of its slice among the ``pieces`` of a sliced leaf.
      examples: the atoms of the examples' axis, or ``None``.
    """

    block: Block
    sites: tuple[tuple[Site, ...], ...] = ()
    transposed: tuple[bool, ...] = ()
    slots: tuple[int, ...] = ()
    pieces: int = 1
    examples: Any = None


def _leading(shape: Sequence[int]) -> Axis:
    return tuple(itertools.chain(*strides.whole(("leaf", 0), shape).dims))


def _fine(axis: Axis, fine: Axis) -> Axis:
    """The factors of a role, in the leaf's own order."""
    return tuple(sorted(strides.cut(axis, fine), key=lambda factor: -factor[1]))


class Kernel(NamedTuple):
    """The common layout of a leaf in all its uses.

    Attributes:
      part: the order of its factors.
      transposed: for each use, whether rows and columns are exchanged.
      slots: for each use, the index of its slice of a sliced leaf.
      pieces: number of slices, 1 for a leaf that is not sliced.
    """

    part: Part
    transposed: tuple[bool, ...]
    slots: tuple[int, ...]
    pieces: int


def _kernel(uses: list[Site], shape, more: Axis = ()) -> Kernel | str:
    """The common layout of a leaf, or the reason why its uses have none."""
    factors = [f for s in uses for f in (*s.stacked, *s.rows, *s.columns)]
    sliced = [f for s in uses for f, _ in s.view.fixed]
    fine = strides.refine([*factors, *sliced, *more], math.prod(shape))
    if fine is None:
        return "its uses cut its axes at places that do not divide one another"
    seen, slots, cuts = [], [], set()
    for site in uses:
        index = strides.digits(site.view, fine)
        kept = tuple(f for f in fine if f[1] in index)
        stacked, rows, columns = (_fine(a, fine) for a in (site.stacked, site.rows, site.columns))
        if sorted([*kept, *stacked, *rows, *columns]) != sorted(fine):
            return "a use sees only a part of it"
        seen.append(((*kept, *stacked), rows, columns))
        slots.append(functools.reduce(lambda i, f: i * f[0] + index[f[1]], kept, 0))
        cuts.add(kept)
    if len(cuts) > 1:
        return "its uses cut it into different pieces"
    # The indexed axis of a look-up gives the rows; else the axes that the first use sums over.
    first = seen[next((i for i, site in enumerate(uses) if site.kind == "embedding"), 0)]
    flips = [roles != first for roles in seen]
    if any((s, b, a) != first for (s, a, b), flip in zip(seen, flips, strict=True) if flip):
        return "its uses sum over different axes of it, which no one pair of factors describes"
    return Kernel(Part(tuple(shape), *first), tuple(flips), tuple(slots), strides.length(*cuts))


def _by_rows(part: Part, shape: Sequence[int]) -> Part:
    """The layout of an added leaf with several axes: a table with a row for each position."""
    last = next(n for n in reversed(shape) if n > 1)
    end = strides.refine([*part.columns, (last, 1)], math.prod(shape)) or ()
    columns = tuple(f for f in strides.cut(part.columns, end) if f[1] < last)
    rows = tuple(f for f in strides.cut(part.columns, end) if f[1] >= last)
    return Part(part.shape, part.stacked, rows, columns)


def knows_examples(site: Site, examples: labels.Atoms | None) -> bool:
    """Whether the positions of a site contain the examples' axis exactly once."""
    if examples is None:
        return False
    wanted = labels.resolve(examples)
    seen = [a for axis in site.positions for a in labels.resolve(axis)]
    return all(sum(a is b for b in seen) == 1 for a in wanted)


def group(reading: Reading, shapes: Sequence[tuple[int, ...]], paths: Sequence[str]) -> list[Group]:
    """The blocks of a reading, in the order of their first leaves."""
    return _Grouping(reading, shapes, paths).all()


class _Grouping:
    def __init__(self, reading: Reading, shapes, paths):
        self.reading, self.shapes, self.paths = reading, shapes, paths
        # Biases whose sum is a recorded use.
        self.biases = {k: v for k, v in reading.biases.items() if k in reading.sites}
        self.gains = {k: v for k, v in reading.gains.items() if k in reading.sites}
        self.uses: dict[int, list[Site]] = {}
        for path in sorted(reading.sites):
            site, later = reading.sites[path], reading.later.get(path)
            if later is not None and not knows_examples(site, reading.examples):
                site = later if knows_examples(later, reading.examples) else site
            self.uses.setdefault(site.leaf, []).append(site)
        self.kernels: dict[int, Kernel] = {}
        self.reasons = dict(reading.broken)
        for leaf in range(len(shapes)):
            self._place(leaf)

    def _place(self, leaf: int) -> None:
        if leaf in self.reasons:
            return
        if leaf not in self.uses:
            returned = leaf in self.reading.returned
            self.reasons[leaf] = (
                "the model returns it among its outputs, and uses it for none"
                if returned
                else "no gradient of the model's outputs reaches it"
            )
            return
        kinds = {site.kind for site in self.uses[leaf]}
        if kinds & {"scale", "shift"} and kinds - {"scale", "shift"}:
            self.reasons[leaf] = MIXED
            return
        more = [(n, s) for match in self._matches(leaf) for n, s, _ in match]
        found = _kernel(self.uses[leaf], self.shapes[leaf], tuple(more))
        if isinstance(found, str):
            self.reasons[leaf] = found
        else:
            self.kernels[leaf] = found

    def _matches(self, leaf: int) -> list[Match]:
        """The cuts of a leaf's factors by the biases of its products."""
        products = {site.path for site in self.uses[leaf]}
        return [match for path, match in self.biases.values() if path in products]

    def all(self) -> list[Group]:
        partners = self._biases() | self._shifts()
        taken = {second for second, _ in partners.values()}
        groups = []
        for leaf in range(len(self.shapes)):
            if leaf in taken:
                continue
            if leaf in self.reasons:
                groups.append(self._fallback(leaf))
            else:
                groups.append(self._block(leaf, partners.get(leaf)))
        return groups

    # ----------------------------------------------------------------------------- pairs of leaves

    def _biases(self) -> dict[int, tuple[int, Part]]:
        """Kernel → its bias, where each use of one belongs to a use of the other."""
        found: dict[int, tuple[int, Part]] = {}
        for leaf, kernel in self.kernels.items():
            if any(kernel.transposed) or self._kind(leaf) not in ("dense", "convolution"):
                continue
            partner = self._partner(leaf, {k: path for k, (path, _) in self.biases.items()})
            if partner is None:
                continue
            matches = set(self._matches(leaf))
            part = self._bias_part(partner, kernel.part, *matches) if len(matches) == 1 else None
            if part is not None and math.prod(part.sizes) == math.prod(self.shapes[partner]):
                found[leaf] = partner, part
        return found

    def _bias_part(self, bias: int, kernel: Part, match: Match) -> Part | None:
        """The bias in the order of the kernel's columns."""
        lookup: dict[int, tuple[int, int]] = {}
        for n, in_kernel, in_bias in match:
            for m, s in strides.cut(((n, in_kernel),), (*kernel.stacked, *kernel.columns)):
                lookup[s] = m, in_bias * (s // in_kernel)
        try:
            stacked = tuple(lookup[s] for _, s in kernel.stacked)
            columns = tuple(lookup[s] for _, s in kernel.columns)
        except KeyError:
            return None
        return Part(tuple(self.shapes[bias]), stacked, (), columns)

    def _shifts(self) -> dict[int, tuple[int, Part]]:
        """Scale → the shift after it, where they run along the same axes."""
        found: dict[int, tuple[int, Part]] = {}
        for leaf, scale in self.kernels.items():
            if self._kind(leaf) != "scale and shift":
                continue
            partner = self._partner(leaf, self.gains)
            if partner is None or self._kind(partner) != "bias":
                continue
            shift = self.kernels[partner]
            known = {
                knows_examples(s, self.reading.examples)
                for k in (leaf, partner)
                for s in self.uses[k]
            }
            alike = shift.part.sizes == scale.part.sizes and shift.slots == scale.slots
            if alike and (known == {True} or len(self.uses[leaf]) == 1):
                found[leaf] = partner, shift.part
        return found

    def _partner(self, leaf: int, follows: dict) -> int | None:
        """The single leaf whose sites follow this leaf's sites, one to one."""
        own = [site.path for site in self.uses[leaf]]
        after = {path: after for after, path in follows.items() if path in own}
        partners = {self.reading.sites[path].leaf for path in after.values()}
        if len(after) != len(own) or len(partners) != 1:
            return None
        (partner,) = partners
        if partner in self.reasons or partner == leaf:
            return None
        same = {s.path for s in self.uses[partner]} == set(after.values())
        return partner if same else None

    # --------------------------------------------------------------------------------- the blocks

    def _kind(self, leaf: int) -> str:
        kinds = {site.kind for site in self.uses[leaf]}
        for kind in ("embedding", "convolution", "dense"):
            if kind in kinds:
                return kind
        return "scale and shift" if "scale" in kinds else "bias"

    def _fallback(self, leaf: int) -> Group:
        shape = tuple(self.shapes[leaf])
        part = Part(shape, (), (), _leading(shape))
        reason = f"{self.reasons[leaf]}."
        reason = reason[0].upper() + reason[1:]
        block = Block(
            self.paths[leaf], (leaf,), "fallback", reason, (1, 1, math.prod(shape)), (part,)
        )
        return Group(block)

    def _block(self, leaf: int, partner: tuple[int, Part] | None) -> Group:
        kernel, flips, slots, pieces = self.kernels[leaf]
        kind, uses = self._kind(leaf), self.uses[leaf]
        if kind == "bias" and sum(n > 1 for n in self.shapes[leaf]) > 1:
            kind, kernel = "embedding", _by_rows(kernel, self.shapes[leaf])
        parts = (kernel,) if partner is None else (kernel, partner[1])
        leaves = (leaf,) if partner is None else (leaf, partner[0])
        s, a, b = kernel.sizes
        joint = partner is not None
        shape = (s, a, 2 * b if joint else b) if kind == "scale and shift" else (s, a + joint, b)
        rows = [(site,) for site in uses]
        if kind == "scale and shift" and partner is not None:
            after = {path: shift for shift, path in self.gains.items()}
            rows = [(site, self.reading.sites[after[site.path]]) for site in uses]
        known = all(knows_examples(site, self.reading.examples) for site in uses)
        examples = self.reading.examples if known else None
        reason = self._reason(leaf, kind, partner, known)
        returned = any(each in self.reading.returned for each in leaves)
        if returned:
            reason += " What is returned of it adds to all its directions alike."
        apart = known and not returned
        block = Block(self.paths[leaf], leaves, kind, reason, shape, parts, apart, returned)
        return Group(block, tuple(rows), flips, slots, pieces, examples)

    def _reason(self, leaf: int, kind: str, partner, known: bool) -> str:
        uses = self.uses[leaf]
        words = {
            "dense": "a matrix product",
            "convolution": "a convolution",
            "embedding": "a table whose rows are looked up",
            "scale and shift": "a scale, entry by entry",
            "bias": "it is added",
        }[kind]
        if kind == "embedding" and uses[0].kind == "shift":
            words = "it is added, a row for each position"
        if partner is not None:
            role = "shift" if kind == "scale and shift" else "bias"
            words += f", with {self.paths[partner[0]]} as its {role}"
        if len(uses) > 1:
            words += f", {len(uses)} times"
        if self.kernels[leaf].pieces > 1:
            words += f" in {self.kernels[leaf].pieces} pieces"
        if any(self.kernels[leaf].transposed):
            words += ", at times transposed"
        words += "" if known else f"; {UNKNOWN}"
        return words[0].upper() + words[1:] + "."
