"""Printable table of leaves, blocks and reasons."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import NamedTuple

from secondorder import tree
from secondorder.layers._instrument import read
from secondorder.objectives._base import objective_of
from secondorder.tree import Params


class Row(NamedTuple):
    """One leaf: its path, the kind and shape of its block, the reason."""

    leaf: str
    block: str
    reason: str


class LayerTable(tuple[Row, ...]):
    """Rows of (leaf, block, reason), one per leaf; ``print`` shows a table."""

    def __str__(self) -> str:
        rows = [Row("leaf", "block", "reason"), *self]
        wide = [max(len(row[i]) for row in rows) for i in range(2)]
        line = lambda row: f"{row.leaf:<{wide[0]}}  {row.block:<{wide[1]}}  {row.reason}".rstrip()
        return "\n".join(map(line, rows))

    def _repr_html_(self) -> str:
        """As a table, for notebooks."""
        line = lambda row, kind: "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row)
        rows = [line(Row("leaf", "block", "reason"), "th"), *(line(row, "td") for row in self)]
        return "<table>" + "\n".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def layer_table(objective: Callable, params: Params, strict: bool = False) -> LayerTable:
    """The layers found in a model by the layer-wise methods: (leaf, block, reason) per leaf.

    Nothing is computed, so ``ShapeDtypeStruct``s suffice.

    Args:
      objective: by ``compose``, ``per_example`` or ``chunked``.
      params: its parameters.
      strict: whether a fallback raises an error.

    Raises:
      TypeError: a plain function instead of an objective, parameters that are not real arrays.
      ValueError: with ``strict``, for fallbacks; the message lists each with its reason.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = jnp.ones((5, 3))
      >>> f = so.compose(so.squared_error(jnp.zeros((5, 2))), lambda p: x @ p["w"] + p["b"] ** 2)
      >>> table = so.layer_table(f, {"b": jnp.zeros(2), "w": jnp.zeros((3, 2))})
      >>> [(row.leaf, row.block) for row in table]
      [("['b']", 'fallback (1, 1, 2)'), ("['w']", 'dense (1, 3, 2)')]
    """
    tree.check_real(params)
    layout = read(objective_of(objective).first_part().split("layer_table").model, params)
    where = {leaf: block for block in layout.blocks for leaf in block.leaves}
    rows = []
    for leaf, path in enumerate(layout.paths):
        block = where[leaf]
        rows.append(Row(path, f"{block.kind} {block.shape}", block.reason))
    lost = [row for row in rows if row.block.startswith("fallback")]
    if strict and lost:
        told = "\n".join(f"  {row.leaf}: {row.reason}" for row in lost)
        raise ValueError(
            f"{len(lost)} of {len(rows)} leaves are in no layer that is understood:\n{told}\n"
            "Write their uses as products with them, or leave strict=False."
        )
    return LayerTable(rows)
