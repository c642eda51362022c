"""Checks of trees, each failure a sentence."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from secondorder import meshes
from secondorder.tree._dtypes import leaf_dtype
from secondorder.tree._types import Params


def check_real(params: Params, name: str = "params") -> None:
    """Raise a ``TypeError`` with the first leaf that is not a real floating-point array.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.check_real(x)
    """
    cure = (
        "Pass the floating-point arrays alone and join the rest in the objective (of an Equinox "
        "module: eqx.partition(model, eqx.is_inexact_array) and eqx.combine; of an NNX one: "
        "nnx.split(model, nnx.Param, ...) and nnx.merge)."
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        where_ = f"{name}{jax.tree_util.keystr(path)}"
        kind = getattr(leaf, "dtype", None)
        if kind is None:
            if not isinstance(leaf, (bool, int, float, complex)):
                raise TypeError(f"{where_} is {leaf!r}, which is no array. {cure}")
            kind = leaf_dtype(leaf)
        if jnp.issubdtype(kind, jnp.complexfloating):
            raise TypeError(
                f"{where_} is complex ({kind}). Second-order methods here work on real parameters: "
                "pass the real and imaginary parts as two leaves and join them in the model."
            )
        if not jnp.issubdtype(kind, jnp.floating):
            number = " Write 1.0 for 1." if isinstance(leaf, int) else ""
            raise TypeError(f"{where_} has dtype {kind}, which has no derivative.{number} {cure}")


def check_match(tree: Params, like: Params, name: str, like_name: str) -> None:
    """Raise a ``ValueError`` where two trees differ in structure or shapes.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.check_match(x, x, "the gradients", "params")
    """
    found, expected = jax.tree.structure(tree), jax.tree.structure(like)
    if found != expected:
        raise ValueError(
            f"{name} must have the tree structure of {like_name}, but {name} is {found} and "
            f"{like_name} is {expected}."
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(like), strict=True)
    for (path, leaf), other in pairs:
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}, but "
                f"{like_name} has shape {jnp.shape(other)} there."
            )


def is_single(x: Any) -> bool:
    """Whether a tree is one number, which stands for every entry of another tree."""
    return jax.tree.structure(x) == jax.tree.structure(0) and jnp.ndim(x) == 0


def spread(bound: Any, params: Params, name: str) -> Params:
    """``bound`` as a tree like ``params``; a number fills every entry.

    Raises:
      ValueError: a tree that differs from ``params`` in structure or shapes.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(2.0)}
      >>> so.tree.spread(0.0, x, "the lower bound")["a"].tolist()
      [0.0, 0.0]
    """
    if is_single(bound):
        return jax.tree.map(
            lambda x: meshes.placed_like(jnp.full(x.shape, bound, x.dtype), x), params
        )
    check_match(bound, params, name, "params")
    return jax.tree.map(lambda b, x: jnp.asarray(b, x.dtype), bound, params)
