"""The rows ``R`` with ``B = RᵀR``, their two Grams, and their products, whole or in chunks.

``R`` has a row per output and a column per parameter, ``(m, n)``. Either Gram answers
``(B + λ I) d = −g``: ``RᵀR`` in the space of the parameters, ``R Rᵀ`` in that of the samples.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from secondorder.operators.base import Operator
from secondorder.operators.chunks import Chunks
from secondorder.operators.pullback import Pullback


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """``R`` as a matrix.

    Attributes:
      matrix: ``(m, n)``.
      residual: the ``r`` with ``Rᵀ r`` the gradient (but for what the rows do not see): ``(m,)``,
        zero where the curvature knows none.
      passes: what forming ``R`` costs, in Jacobian passes: once, whatever is asked of it.
    """

    matrix: jax.Array
    residual: jax.Array
    passes: int

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.matrix.shape
        return m, n

    def parameter_gram(self) -> jax.Array:
        """``RᵀR``, ``(n, n)``."""
        return _product(self.matrix.T, self.matrix)

    def sample_gram(self) -> jax.Array:
        """``R Rᵀ``, ``(m, m)``."""
        return _product(self.matrix, self.matrix.T)

    def mv(self, v: jax.Array) -> jax.Array:
        """``R v``, also of the columns of a matrix."""
        return _product(self.matrix, v)

    def mvt(self, u: jax.Array) -> jax.Array:
        """``Rᵀ u``, likewise."""
        return _product(self.matrix.T, u)


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkedRows:
    """``R`` of a chunked objective, ``√w Rₖ`` for chunk k: those of two chunks live at once.

    Every method forms the rows anew, so a Gram of K chunks in the space of the samples costs K + K²
    Jacobians of a chunk, and one in that of the parameters K.
    """

    operator: Chunks

    def _chunk(self, k: jax.Array) -> Rows:
        objective = self.operator.objective
        part = rows_of(self.operator.of(objective.objective(objective.chunk(k)), k))
        assert isinstance(part, Rows)
        root = math.sqrt(objective.weight)
        return Rows(root * part.matrix, root * part.residual, part.passes)

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
    def shape(self) -> tuple[int, int]:
        one = jax.eval_shape(lambda k: self._chunk(k).matrix, jnp.zeros((), int))
        return self._count * one.shape[0], one.shape[1]

    @property
    def passes(self) -> int:
        """Of the smaller Gram. Each product with ``R`` forms the rows once more, uncounted."""
        m, n = self.shape
        return m if n <= m else (1 + self._count) * m

    @property
    def residual(self) -> jax.Array:
        return self._over_chunks(lambda rows, k: rows.residual).ravel()

    def parameter_gram(self) -> jax.Array:
        return self._total(lambda rows, k: rows.parameter_gram())

    def sample_gram(self) -> jax.Array:
        m, _ = self.shape
        of = lambda rows, k: self._over_chunks(lambda others, _: rows.mv(others.matrix.T))
        blocks = self._over_chunks(of)  # (K, K, m/K, m/K)
        return blocks.transpose(0, 2, 1, 3).reshape(m, m)

    def mv(self, v: jax.Array) -> jax.Array:
        images = self._over_chunks(lambda rows, k: rows.mv(v))
        return images.reshape(-1, *v.shape[1:])

    def mvt(self, u: jax.Array) -> jax.Array:
        cut = u.reshape(self._count, -1, *u.shape[1:])
        return self._total(lambda rows, k: rows.mvt(cut[k]))


def rows_of(op: Operator) -> Rows | ChunkedRows | None:
    """The rows of a Gauss-Newton or Fisher matrix; ``None`` of another operator."""
    if isinstance(op, Chunks):
        return ChunkedRows(op)
    if not isinstance(op, Pullback):
        return None
    matrix, residual = op.factor(), op.residual()
    zeros = jnp.zeros(matrix.shape[0], matrix.dtype)
    return Rows(matrix, zeros if residual is None else residual, op.jacobian.passes)
