"""Gaps of a tree: the leaves that Optax masks, as in ``optax.masked`` and ``optax.partition``."""

from __future__ import annotations

import jax
import optax

from secondorder.tree._types import Params


def is_gap(x: object) -> bool:
    """Whether a leaf is masked."""
    return isinstance(x, optax.MaskedNode)


def has_gaps(tree: Params) -> bool:
    """Whether a tree has masked leaves."""
    return any(map(is_gap, jax.tree.leaves(tree, is_leaf=is_gap)))


def masked_like(like: Params, tree: Params) -> Params:
    """``tree`` with the gaps of ``like``."""
    return jax.tree.map(lambda a, x: a if is_gap(a) else x, like, tree, is_leaf=is_gap)


def filled(tree: Params, source: Params) -> Params:
    """``tree`` with its gaps filled from ``source``."""
    return jax.tree.map(lambda x, s: s if is_gap(x) else x, tree, source, is_leaf=is_gap)
