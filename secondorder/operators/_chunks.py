"""``w Σₖ Bₖ``: the curvature of a chunked objective, each chunk's taken anew for every product."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from secondorder import tree
from secondorder.objectives._chunked import Chunked
from secondorder.operators._base import Operator
from secondorder.tree import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Chunks(Operator):
    """``w Σₖ Bₖ`` over the chunks of an objective.

    Kept linearisations would be as large as that of the whole batch: no chunk's outlives its
    product. So a product begins with a forward pass, in the memory of one chunk.

    Attributes:
      objective, params: the objective and the point.
      of: ``(objective of chunk k, k) -> Bₖ``.
    """

    objective: Chunked
    params: Params
    of: Callable[[Any, jax.Array], Operator]

    def _total(self, fn: Callable[[Operator], Any]) -> Any:
        total = self.objective.total(lambda part, k: fn(self.of(part, k)))
        return tree.scale(self.objective.weight, total)

    def mv(self, v: Params) -> Params:
        tree.check_match(v, self.params, "the vector v", "the operator's parameters")
        wide = tree.accumulator(v)
        return tree.cast(self._total(lambda op: op.mv(wide)), v)

    def gram(self, *vectors: Params) -> jax.Array:
        return self._total(lambda op: op.gram(*vectors))

    def matrix(self, like: Params) -> jax.Array:
        return self._total(lambda op: op.matrix(like))
