"""Names and masks of parameters, and fits in which some of them are fixed or tied to others.

A search runs over the free parameters alone: leaves without a free entry are gaps, a leaf with some
is the vector of those. All the parameters follow from the free ones, the fixed values and the ties.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from secondorder import tree
from secondorder.tree import Params

GAP = optax.MaskedNode()
ENTRY = re.compile(r"(.*)\[([\d, ]+)\]")
EXPRESSION = " An expression is a function of the parameters: lambda p: p[...] / 2."


class Place(NamedTuple):
    """A leaf of the parameters, or one of its entries.

    Attributes:
      leaf: the number of the leaf.
      entry: the index of the entry; ``None`` for the whole leaf.
    """

    leaf: int
    entry: tuple[int, ...] | None


class Tie(NamedTuple):
    """A parameter that is an expression of others."""

    name: str
    place: Place
    value: Callable[[Params], Any]


# As a user gives them: the fixed parameters by name with their values, by name alone, or as a mask;
# the ties by name, each a function of the parameters or the name of another parameter.
Fixed = dict[str, Any] | Sequence[str] | str | Params | None
Tied = dict[str, Any] | None


class Layout(NamedTuple):
    """The free parameters among all.

    Attributes:
      masks: of each leaf, whether it is free: true, false, or an array of booleans.
      ties: the tied parameters, in the order of their evaluation.
    """

    masks: tuple[bool | np.ndarray, ...]
    ties: tuple[Tie, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether all parameters are free."""
        return all(mask is True for mask in self.masks)

    def flags(self, params: Params) -> np.ndarray:
        """Whether each number is free, in the order of ``ravel``."""
        pairs = zip(self.masks, jax.tree.leaves(params), strict=True)
        return np.concatenate([np.broadcast_to(m, np.shape(x)).ravel() for m, x in pairs])

    def free(self, params: Params) -> Params:
        """The free parameters of all."""
        if self.is_plain:
            return params
        leaves, structure = jax.tree.flatten(params)
        pick = lambda x, mask: jnp.asarray(x)[np.nonzero(mask)] if np.ndim(mask) else x
        parts = [pick(x, m) if np.any(m) else GAP for x, m in zip(leaves, self.masks, strict=True)]
        return jax.tree.unflatten(structure, parts)

    def whole(self, free: Params, base: Params) -> Params:
        """All parameters, from the free ones and a tree with the fixed ones."""
        if self.is_plain:
            return free
        leaves, structure = jax.tree.flatten(base)
        parts = structure.flatten_up_to(free)

        def put(x: Any, mask: Any, part: Any) -> Any:
            if not np.ndim(mask):
                return part if mask else x
            return x.at[np.nonzero(mask)].set(part.astype(x.dtype)) if np.any(mask) else x

        leaves = [put(*each) for each in zip(leaves, self.masks, parts, strict=True)]
        for tie in self.ties:  # an expression that reads a later tie is NaN, not an old value
            leaves[tie.place.leaf] = _with(leaves[tie.place.leaf], tie.place, np.nan)
        for tie in self.ties:
            value = tie.value(jax.tree.unflatten(structure, leaves))
            leaves[tie.place.leaf] = _with(leaves[tie.place.leaf], tie.place, value, tie.name)
        return jax.tree.unflatten(structure, leaves)


def layout_of(params: Params, fixed: Fixed, tied: Tied) -> tuple[Layout, Params]:
    """The layout of a fit, and the parameters with the fixed values in place.

    Raises:
      ValueError: an unknown name, a value of another shape, a parameter fixed and tied, or a tie
        without a finite value at the start.
    """
    leaves, structure = jax.tree.flatten(params)
    masks = [np.ones(np.shape(x), bool) for x in leaves]
    for place, value in _fixed(fixed, params):
        if not isinstance(value, bool):
            leaves[place.leaf] = _with(leaves[place.leaf], place, value, "fixed")
        masks[place.leaf][_index(place)] = value is False
    ties = list(_ties(tied, params))
    for tie in ties:
        if not np.all(masks[tie.place.leaf][_index(tie.place)]):
            raise ValueError(f"{tie.name} is fixed or tied twice. Name it once, in fixed or tied.")
        masks[tie.place.leaf][_index(tie.place)] = False
    shown = tuple(bool(m.all()) if m.all() or not m.any() else m for m in masks)
    layout, base = Layout(shown, tuple(ties)), jax.tree.unflatten(structure, leaves)
    if ties:
        base = layout.whole(layout.free(base), base)
        _check_ties(layout, base)
    return layout, base


def _check_ties(layout: Layout, params: Params) -> None:
    leaves = jax.tree.leaves(params)
    for tie in layout.ties:
        value = leaves[tie.place.leaf][_index(tie.place)]
        if not isinstance(value, Tracer) and not np.all(np.isfinite(value)):
            raise ValueError(
                f"The expression of the tied parameter {tie.name} is {value} at the start. An "
                "expression may read the parameters tied before it, and none tied after it."
            )


def _fixed(fixed: Fixed, params: Params) -> Iterator[tuple[Place, Any]]:
    """The places of the fixed parameters and their values; true for the start value."""
    if fixed is None:
        return
    fixed = fixed(params) if callable(fixed) else fixed
    if isinstance(fixed, str):
        fixed = (fixed,)
    if isinstance(fixed, tuple | list) and fixed and all(isinstance(x, str) for x in fixed):
        fixed = dict.fromkeys(fixed, True)
    if isinstance(fixed, dict):
        for name, value in flattened(fixed):
            for place in places(params, name, "fixed"):
                if np.ndim(value):
                    shape = np.shape(jax.tree.leaves(params)[place.leaf])
                    _check_shape("fixed", name, value, shape if place.entry is None else ())
                yield from _of_mask(place, value)
        return
    single = jax.tree.structure(params) == jax.tree.structure(0)
    fixed = np.asarray(fixed) if single and isinstance(fixed, list) else fixed
    spread = spread_mask("fixed", fixed, params, entries=True)
    for number, mask in enumerate(jax.tree.leaves(spread)):
        yield from _of_mask(Place(number, None), mask)


def spread_mask(user: str, mask: Any, params: Params, entries: bool = False) -> Params:
    """``mask`` with a boolean for every leaf of ``params``; with ``entries``, also for every entry.

    Raises:
      ValueError: a mask that is not a prefix of ``params``, or not of booleans.
    """
    try:
        spread = jax.tree.map(lambda m, p: jax.tree.map(lambda _: m, p), mask, params)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{user} must have the tree structure of params, or of its upper part, but it is "
            f"{jax.tree.structure(mask)} and params is {jax.tree.structure(params)}."
        ) from error
    flags = jax.tree_util.tree_leaves_with_path(spread)
    for (path, flag), leaf in zip(flags, jax.tree.leaves(params), strict=True):
        place = f"{user}{jax.tree_util.keystr(path)}"
        array = entries and getattr(flag, "dtype", None) == np.dtype(bool)
        if array and np.shape(flag) in ((), np.shape(leaf)):
            continue
        if not isinstance(flag, bool | np.bool_):
            cure = "A leaf is linear as a whole: split one that is so only in part."
            if entries:
                cure = f"For a part of an array, pass booleans of its shape, {np.shape(leaf)}."
            raise ValueError(f"{place} must be True or False, but it is {flag!r}. {cure}")
    return spread


def _of_mask(place: Place, value: Any) -> Iterator[tuple[Place, Any]]:
    """The entries of an array of booleans; anything else as it is."""
    if getattr(value, "dtype", None) != np.dtype(bool):
        yield place, value
    elif np.ndim(value) == 0:
        yield place, bool(value)
    else:
        for entry in zip(*np.nonzero(np.asarray(value)), strict=True):
            yield Place(place.leaf, tuple(map(int, entry))), True


def _ties(tied: Tied, params: Params) -> Iterator[Tie]:
    if tied is None:
        return
    if not isinstance(tied, dict):
        raise TypeError(
            f"curve_fit got tied={tied!r}; pass a dictionary from names to functions of the "
            'parameters, such as {"b": lambda p: 2 * p["a"]}, or to the name of another parameter.'
        )
    for name, value in flattened(tied):
        if isinstance(value, str):
            (source,) = places(params, value, f"tied[{name!r}]", EXPRESSION)
            value = Shared(source)
        if not callable(value):
            raise TypeError(f"tied[{name!r}] is {value!r}; pass a function of the parameters.")
        for place in places(params, name, "tied"):
            yield Tie(name, place, value)


class Shared(NamedTuple):
    """The expression of a parameter that equals another one."""

    source: Place

    def __call__(self, params: Params) -> Any:
        return jax.tree.leaves(params)[self.source.leaf][_index(self.source)]


def flattened(given: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of nested dictionaries: ``{"a": {"b": 1}}`` has ``a.b``."""
    for key, value in given.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flattened(value, f"{name}.")
        else:
            yield name, value


def names(params: Params) -> list[str]:
    """The names of the leaves: their paths, ``peaks.0.width`` for ``params["peaks"][0].width``."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]


def entry_names(params: Params) -> list[str]:
    """The names of all entries in the order of ``ravel``: the leaf's, or ``c[0]`` in an array."""
    found = []
    for name, leaf in zip(names(params), jax.tree.leaves(params), strict=True):
        for place in np.ndindex(np.shape(leaf)):
            inner = f"[{', '.join(map(str, place))}]" if place else ""
            found.append(f"{name}{inner}" or "parameter")
    return found


def places(params: Params, name: str, user: str, cure: str = "") -> list[Place]:
    """The places of a name: a leaf, all leaves below a branch, or an entry such as ``c[0]``.

    Raises:
      ValueError: an unknown name.
    """
    known, leaves = names(params), jax.tree.leaves(params)
    found = [i for i, path in enumerate(known) if path == name or path.startswith(f"{name}.")]
    if found:
        return [Place(i, None) for i in found]
    if known == [""]:  # one array: its entries go by number
        name = "" if name == "parameter" else name if "[" in name else f"[{name}]"
    head, entry = name, None
    if matched := ENTRY.fullmatch(name):
        head, entry = matched[1], tuple(int(i) for i in matched[2].split(","))
    if head in known:
        leaf = known.index(head)
        shape = np.shape(leaves[leaf])
        inside = entry is None or len(entry) == len(shape)
        if inside and all(i < n for i, n in zip(entry or (), shape, strict=False)):
            return [Place(leaf, entry)]
    listed = ", ".join(entry_names(params)[:20])
    raise ValueError(f"{user} names {name!r}, but the parameters are {listed}.{cure}")


def free_numbers(layout: Layout, params: Params, chosen: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers of some parameters among the free ones, in the order of ``ravel``.

    Raises:
      ValueError: not one or two names, or one that is not a free number.
    """
    pairs = zip(entry_names(params), layout.flags(params), strict=True)
    free = [name for name, is_free in pairs if is_free]
    known = [str(name) for name in chosen]
    if len(known) not in (1, 2) or len(set(known)) != len(known) or not set(known) <= set(free):
        raise ValueError(
            f"profile got {', '.join(map(repr, chosen))}; pass one or two of the free parameters "
            f"{', '.join(free[:20])}."
        )
    return tuple(free.index(name) for name in known)


def _index(place: Place) -> Any:
    return ... if place.entry is None else place.entry


def _check_shape(user: str, name: str, value: Any, shape: tuple[int, ...]) -> None:
    if np.shape(value) not in ((), shape):
        raise ValueError(
            f"{user} has a value of the shape {np.shape(value)} for {name}, whose shape is {shape}."
        )


def _with(leaf: Any, place: Place, value: Any, name: str = "") -> Any:
    """A leaf with a value in a place."""
    dtype, value = tree.leaf_dtype(leaf), jnp.asarray(value)
    shape = np.shape(leaf) if place.entry is None else ()
    _check_shape("tied", name, value, shape)
    if tree.is_complex(value):
        raise ValueError(f"The value of {name} is complex, but parameters are real.")
    if place.entry is None:
        return jnp.broadcast_to(value.astype(dtype), shape)
    return jnp.asarray(leaf).at[place.entry].set(value.astype(dtype))
