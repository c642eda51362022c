"""Bounds of the parameters: their trees, checks, and the parameters that they hold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder import tree
from secondorder.optimize._parameters import flattened, places
from secondorder.tree import Params
from secondorder.tree._checks import is_single

# As a user gives them: a pair (lower, upper) of numbers, of trees or of dictionaries of some
# parameters by name; one dictionary of pairs by name; or no bounds.
Bounds = tuple[Any, Any] | dict[str, Any] | None
Box = tuple[Params, Params]  # the lower and the upper bounds, each a number or a tree


def box_of(bounds: Box, params: Params) -> Box:
    """Bounds as two trees like ``params``."""
    lower = tree.spread(bounds[0], params, "the lower bound")
    return lower, tree.spread(bounds[1], params, "the upper bound")


def filled(bounds: Bounds, params: Params) -> Box | None:
    """Bounds as a pair, with those that are not given at infinity.

    Raises:
      ValueError: bounds that are not a pair, or of an unknown name.
    """
    if bounds is None:
        return None
    if isinstance(bounds, dict):
        ends: tuple[dict, dict] = {}, {}
        for name, pair in flattened(bounds):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError(f"bounds[{name!r}] must be a pair (lower, upper), not {pair!r}.")
            ends[0][name], ends[1][name] = pair
        bounds = ends
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        raise ValueError(f"bounds must be a pair (lower, upper), but got {bounds!r}.")
    whole = jax.tree.structure(params)

    def end(bound: Any, none: float) -> Any:
        if bound is None:
            return none
        if not isinstance(bound, dict) or jax.tree.structure(bound) == whole:
            return bound
        leaves: list[Any] = [
            np.full(np.shape(x), none, tree.leaf_dtype(x)) for x in jax.tree.leaves(params)
        ]
        for name, value in flattened(bound):
            value = none if value is None else value
            for leaf, entry in places(params, name, "bounds"):
                if entry is None:
                    same = np.shape(value) == () and np.shape(leaves[leaf])
                    leaves[leaf] = jnp.full_like(leaves[leaf], value) if same else value
                else:
                    leaves[leaf] = jnp.asarray(leaves[leaf]).at[entry].set(value)
        return jax.tree.unflatten(whole, leaves)

    return end(bounds[0], -np.inf), end(bounds[1], np.inf)


def check_bounds(bounds: Box | None, params: Params) -> None:
    """Raise an error for bounds that cross; by NumPy, which compiles nothing.

    Bounds computed under ``jit`` have no values yet; those that do not fit the parameters get their
    sentence from :func:`box_of`.
    """
    if bounds is None:
        return
    leaves = jax.tree_util.tree_leaves_with_path(params)
    lower, upper = (_ends(bound, len(leaves)) for bound in bounds)
    if any(isinstance(x, Tracer) for x in (*lower, *upper)):
        return
    for (path, x), low, high in zip(leaves, lower, upper, strict=False):
        low, high = (np.asarray(end).astype(tree.leaf_dtype(x)) for end in (low, high))
        if np.any(low > high):
            raise ValueError(
                f"bounds cross at params{jax.tree_util.keystr(path)}: a lower bound exceeds its "
                "upper one. Swap them, or make them equal to fix the parameter."
            )


def _ends(bound: Any, count: int) -> list[Any]:
    """The bound of each leaf; one number for all leaves."""
    return [bound] * count if is_single(bound) else jax.tree.leaves(bound)


def active(params: Params, grad: Params, box: Box | None) -> tuple[Params, Params]:
    """Masks of the parameters held at their lower, and at their upper bound by the gradient.

    A parameter between equal bounds is in one of the two.
    """
    if box is None:
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), params)
        return none, none
    lower = jax.tree.map(lambda x, g, low: (x <= low) & (g >= 0), params, grad, box[0])
    on_upper = lambda x, g, high, other: (x >= high) & (g <= 0) & ~other
    return lower, jax.tree.map(on_upper, params, grad, box[1], lower)


def free_params(params: Params, grad: Params, box: Box | None) -> Params:
    """Mask of the parameters that may move: all but those held at a bound by the gradient."""
    return jax.tree.map(lambda low, high: ~(low | high), *active(params, grad, box))
