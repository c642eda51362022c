"""``w Σₖ Bₖ``: the curvature of a chunked objective, each chunk's taken anew for every product."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.objectives._base import objective_of
from secondorder.objectives._chunked import Chunked
from secondorder.operators._base import Operator
from secondorder.operators._rows import AnyRows
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

    def rows(self, formed: bool = True, matrix: jax.Array | None = None) -> AnyRows:
        del matrix
        return ChunkedRows(self, formed)


def over_parts(
    objective: Any,
    params: Params,
    of: Callable[[Any, Params, jax.Array | None], Operator],
    key: jax.Array | None = None,
) -> Operator:
    """``of(objective, params, key)``, or of an objective in chunks the sum of those of its chunks.

    Args:
      key: of random draws; each chunk gets its own.
    """
    own = lambda k: None if key is None else jax.random.fold_in(key, k)
    return objective_of(objective).by_parts(
        lambda whole: of(whole, params, key),
        lambda sums: Chunks(sums, params, lambda part, k: over_parts(part, params, of, own(k))),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkedRows:
    """``R`` of a chunked objective, ``√w Rₖ`` for chunk k: those of two chunks live at once.

    Every method forms the rows anew, so a Gram of K chunks in the space of the samples costs K + K²
    Jacobians of a chunk, and one in that of the parameters K.

    Attributes:
      operator: ``w Σₖ Bₖ``.
      formed: whether the rows of a chunk are formed, or known by products alone.
    """

    operator: Chunks
    formed: bool = True
    matrix: None = None

    def _chunk(self, k: jax.Array) -> AnyRows:
        """``Rₖ``."""
        objective = self.operator.objective
        op = self.operator.of(objective.objective(objective.chunk(k)), k)
        return op.rows(self.formed)

    def _over_chunks(self, fn) -> jax.Array:
        """``fn(Rₖ, k)`` of every chunk, stacked."""
        return jax.lax.map(lambda k: fn(self._chunk(k), k), jnp.arange(self._count))

    def _total(self, fn) -> jax.Array:
        numbers = jnp.arange(self._count)
        add = lambda total, k: (total + fn(self._chunk(k), k), None)
        shape = jax.eval_shape(lambda k: fn(self._chunk(k), k), numbers[0])
        return jax.lax.scan(add, jnp.zeros(shape.shape, shape.dtype), numbers)[0]

    @property
    def _count(self) -> int:
        return self.operator.objective.count

    @property
    def _weight(self) -> float:
        return self.operator.objective.weight

    @property
    def shape(self) -> tuple[int, int]:
        one = jax.eval_shape(lambda k: self._chunk(k).residual, jnp.zeros((), int))
        return self._count * one.size, tree.size(self.operator.params)

    @property
    def passes(self) -> int:
        """Of the smaller Gram. Each product with ``R`` forms the rows once more, uncounted."""
        m, n = self.shape
        return m if n <= m else (1 + self._count) * m

    @property
    def residual(self) -> jax.Array:
        return math.sqrt(self._weight) * self._over_chunks(lambda rows, k: rows.residual).ravel()

    def parameter_gram(self) -> jax.Array:
        return self._weight * self._total(lambda rows, k: rows.parameter_gram())

    def sample_gram(self) -> jax.Array:
        m, _ = self.shape
        transposed: Any = lambda rows: rows.matrix.T
        of = lambda rows, k: self._over_chunks(lambda others, _: rows.mv(transposed(others)))
        blocks = self._over_chunks(of)  # (K, K, m/K, m/K)
        return self._weight * blocks.transpose(0, 2, 1, 3).reshape(m, m)

    def mv(self, v: jax.Array) -> jax.Array:
        images = self._over_chunks(lambda rows, k: rows.mv(v))
        return math.sqrt(self._weight) * images.reshape(-1, *v.shape[1:])

    def mvt(self, u: jax.Array) -> jax.Array:
        cut = u.reshape(self._count, -1, *u.shape[1:])
        return math.sqrt(self._weight) * self._total(lambda rows, k: rows.mvt(cut[k]))
