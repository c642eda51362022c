"""The passes of a dense Jacobian: forward, backward, or one example at a time.

A column costs one forward pass (``J e``), a row one backward pass (``Jᵀ e``), so the shape decides
the mode: with n inputs and m outputs, ``forward`` for ``n ≤ 2m``, else ``reverse``. Rows of
independent examples, as of a ``vmap`` over data, are differentiated one example at a time. ``python
-m experiments bench jacobian`` prints the measured ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import layers, tree
from secondorder.losses import Outputs
from secondorder.tree import Params

PREFERRED = 2  # forward passes for a backward pass, of which XLA runs some batches very slowly
EXAMPLES = 16  # fewer rows or columns are not worth the search for examples


def cheaper_mode(inputs: int, outputs: int) -> str:
    """``forward`` (one pass per input) or ``reverse`` (one per output)."""
    return "forward" if inputs <= PREFERRED * outputs else "reverse"


def by_example(
    fn: Callable[[Params], Outputs], params: Params, outputs: Outputs, one: Callable
) -> Any | None:
    """``one(model of an example)`` of all independent examples, in the tree of the outputs.

    ``None`` for few rows or columns, and where no independent examples are found.
    """
    if min(tree.size(params), tree.size(outputs)) < EXAMPLES:
        return None
    # A cotangent of the parameters has their precision, a tangent that of the outputs.
    if jnp.finfo(tree.dtype(params)).eps > jnp.finfo(tree.dtype(outputs)).eps:
        return None
    pieces = layers.examples_of(fn, params)
    if not pieces:
        return None

    def rows(piece: layers.Piece) -> list[Any]:
        return jax.vmap(lambda example: one(lambda p: piece.model(p, example)))(piece.examples)

    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *map(rows, pieces))
    return jax.tree.unflatten(jax.tree.structure(outputs), joined)


def by_leaf(rows: Any, like: Params) -> Any:
    """Rows of the joined ``like``, one array or a tree of them, as trees for each leaf of it."""

    def of(x: Any, start: int) -> Any:
        part = lambda r: r[start : start + jnp.size(x)].reshape(*jnp.shape(x), *r.shape[1:])
        return jax.tree.map(part, rows)

    return jax.tree.map(of, like, offsets(like))


def offsets(like: Params) -> Params:
    """The offset of each leaf in the joined vector."""
    leaves, structure = jax.tree.flatten(like)
    starts = [tree.size(leaves[:i]) for i in range(len(leaves))]
    return jax.tree.unflatten(structure, starts)
