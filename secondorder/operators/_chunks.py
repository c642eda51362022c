"""``Σₖ wₖ Bₖ``: the curvature of a chunked objective, linearised again for every product."""

from __future__ import annotations

import dataclasses
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
from secondorder.tree._types import Count


@dataclasses.dataclass(frozen=True, eq=False)
class Chunks(Operator):
    """``Σₖ wₖ Bₖ`` over the chunks of an objective.

    Stored linearisations of all chunks would need as much memory as the whole batch. So each
    product linearises each chunk again (a forward pass), in the memory of one chunk.

    Attributes:
      objective, params: the objective and the point.
      of: ``(objective of chunk k, k) -> Bₖ``.
    """

    objective: Chunked
    params: Params
    of: Callable[[Any, Count], Operator]

    @property
    def semidefinite(self) -> bool:
        found = []

        def look() -> None:
            part = self.objective.objective(self.objective.chunk(0))
            found.append(self.of(part, jnp.zeros((), jnp.int32)).semidefinite)

        jax.eval_shape(look)  # the form of a chunk's curvature takes no arithmetic
        return found[0]

    def _total(self, fn: Callable[[Operator], Any]) -> Any:
        return self.objective.total(lambda part, k: fn(self.of(part, k)))

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
    objective: Callable,
    params: Params,
    of: Callable[[Any, Params, jax.Array | None], Operator],
    key: jax.Array | None = None,
) -> Operator:
    """``of(objective, params, key)``; for a chunked objective, the sum over its chunks.

    Args:
      key: key of the random draws; each chunk gets its own.
    """
    own = lambda k: None if key is None else jax.random.fold_in(key, k)
    return objective_of(objective).by_parts(
        lambda whole: of(whole, params, key),
        lambda sums: Chunks(sums, params, lambda part, k: over_parts(part, params, of, own(k))),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkedRows:
    """``R`` of a chunked objective, ``√wₖ Rₖ`` for chunk k, at most two chunks in memory.

    Every method forms the rows again. With K chunks, the Gram in sample space costs K + K²
    Jacobians of a chunk, and the Gram in parameter space costs K.

    Attributes:
      operator: ``Σₖ wₖ Bₖ``.
      formed: whether the rows of a chunk are formed; False for products only.
    """

    operator: Chunks
    formed: bool = True
    matrix: None = None

    def _of(self, chunk: Any, k: Count) -> AnyRows:
        """``Rₖ``."""
        return self.operator.of(self._objective.objective(chunk), k).rows(self.formed)

    def _stacked(self, fn: Callable[[AnyRows], jax.Array]) -> jax.Array:
        """``√wₖ fn(Rₖ)`` of all chunks, stacked."""
        whole, chunk = self._objective.whole, self._objective.chunk
        of = lambda chunk, k: self._objective.weight(k) ** 0.5 * fn(self._of(chunk, k))
        found = jax.lax.map(lambda k: of(chunk(k), k), jnp.arange(whole))
        found = found.reshape(-1, *found.shape[2:])
        if not self._objective.left:
            return found
        return jnp.concatenate([found, of(self._objective.rest(), whole)])

    @property
    def _objective(self) -> Chunked:
        return self.operator.objective

    @property
    def shape(self) -> tuple[int, int]:
        residual = jax.eval_shape(lambda: self.residual)
        return residual.size, tree.size(self.operator.params)

    @property
    def passes(self) -> int:
        """Jacobian passes of the smaller Gram; products with ``R`` form rows again, uncounted."""
        m, n = self.shape
        return m if n <= m else (1 + self._objective.count) * m

    @property
    def residual(self) -> jax.Array:
        return self._stacked(lambda rows: rows.residual)

    def parameter_gram(self) -> jax.Array:
        of = lambda part, k: self.operator.of(part, k).rows(self.formed).parameter_gram()
        return self._objective.total(of)

    def sample_gram(self) -> jax.Array:
        transposed: Any = lambda rows: rows.matrix.T
        return self._stacked(lambda rows: self.mv(transposed(rows)).T)

    def mv(self, v: jax.Array) -> jax.Array:
        return self._stacked(lambda rows: rows.mv(v))

    def mvt(self, u: jax.Array) -> jax.Array:
        size = jax.eval_shape(lambda: self._of(self._objective.chunk(0), 0).residual).size

        def of(part: Any, k: Count) -> jax.Array:
            rows = self.operator.of(part, k).rows(self.formed)
            return rows.mvt(jax.lax.dynamic_slice_in_dim(u, k * size, rows.residual.size))

        return self._objective.total(of, root=True)
