"""The rows ``R`` with ``B = RᵀR``, their two Grams, and their products: formed, or not; in chunks.

``R`` has a row per output and a column per parameter, ``(m, n)``. Either Gram answers
``(B + λ I) d = −g``: ``RᵀR`` in the space of the parameters, ``R Rᵀ`` in that of the samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators._base import Operator
from secondorder.operators._chunks import Chunks
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._gauss_newton import GaussNewton


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


class AnyRows(Protocol):
    """``R`` of shape ``(m, n)``: what a solver asks of it."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def residual(self) -> jax.Array:
        """The ``r`` with ``Rᵀ r`` the gradient, ``(m,)``; zero where the curvature knows none."""
        ...

    @property
    def passes(self) -> int:
        """What the smaller Gram costs, in Jacobian passes."""
        ...

    @property
    def formed(self) -> bool:
        """Whether ``R`` is, or its chunks are."""
        ...

    def parameter_gram(self) -> jax.Array: ...

    def sample_gram(self) -> jax.Array: ...

    def mv(self, v: jax.Array, /) -> jax.Array: ...

    def mvt(self, u: jax.Array, /) -> jax.Array: ...


@dataclasses.dataclass(frozen=True, eq=False)
class KnownGram(GaussNewton):
    """``JᵀMJ`` of which ``J Jᵀ`` is known without ``J``.

    Attributes:
      outputs_gram: ``() ↦ J Jᵀ``, ``(m, m)``, in the order of the ravelled outputs.
    """

    outputs_gram: Callable[[], jax.Array]


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
    formed: bool = True

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
class ImplicitRows:
    """``R = Sᵀ J`` by its products: a forward pass, or a backward one.

    Attributes:
      operator: ``RᵀR``.
      gram: ``() ↦ J Jᵀ`` where it is known, for the Gram of the samples.
    """

    operator: GaussNewton
    gram: Callable[[], jax.Array] | None = None

    @property
    def formed(self) -> bool:
        m, n = self.shape
        return self.gram is not None and n <= m  # for the Gram of the parameters

    def _root_transpose(self, columns: jax.Array) -> jax.Array:
        """``Sᵀ`` times columns in the order of the ravelled outputs."""
        wide = tree.accumulator(self.operator.jacobian.outputs)
        of = lambda c: ravel(self.operator.middle.root_transpose(tree.cast(unravel(c, wide), wide)))
        return jax.vmap(of, in_axes=1, out_axes=1)(columns)

    @property
    def shape(self) -> tuple[int, int]:
        at = self.operator.jacobian
        images = jax.eval_shape(self.operator.middle.root_transpose, tree.accumulator(at.outputs))
        return tree.size(images), tree.size(at.params)

    @property
    def residual(self) -> jax.Array:
        r = self.operator.residual()
        return (
            jnp.zeros(self.shape[0], tree.dtype(self.operator.jacobian.params)) if r is None else r
        )

    @property
    def passes(self) -> int:
        return self.operator.jacobian.passes

    def parameter_gram(self) -> jax.Array:
        return self.operator.matrix(self.operator.jacobian.params)

    def sample_gram(self) -> jax.Array:
        """``Sᵀ (J Jᵀ) S``."""
        if self.gram is None:
            raise TypeError("These rows know no Gram of the samples but by products with them.")
        return self._root_transpose(self._root_transpose(self.gram()).T)

    def mv(self, v: jax.Array) -> jax.Array:
        """``R v``, one forward pass."""
        at = self.operator.jacobian
        image = at.mv(tree.cast(unravel(v, at.params), at.params))
        return ravel(self.operator.middle.root_transpose(tree.accumulator(image)))

    def mvt(self, u: jax.Array) -> jax.Array:
        """``Rᵀ u``, one backward pass."""
        at, root = self.operator.jacobian, self.operator.middle.root_transpose
        wide = tree.accumulator(at.outputs)
        like = jax.eval_shape(root, wide)
        (back,) = jax.linear_transpose(root, wide)(tree.cast(unravel(u, like), like))
        return ravel(at.mvt(back))


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkedRows:
    """``R`` of a chunked objective, ``√w Rₖ`` for chunk k: those of two chunks live at once.

    Every method forms the rows anew, so a Gram of K chunks in the space of the samples costs K + K²
    Jacobians of a chunk, and one in that of the parameters K.

    Attributes:
      operator: ``w Σₖ Bₖ``.
      implicit: whether the rows of a chunk are not formed, and known by products alone.
    """

    operator: Chunks
    implicit: bool = False

    def _chunk(self, k: jax.Array) -> Rows | ImplicitRows:
        """``Rₖ``."""
        objective = self.operator.objective
        op = self.operator.of(objective.objective(objective.chunk(k)), k)
        part = implicit_rows(op) if self.implicit else rows_of(op)
        assert isinstance(part, Rows | ImplicitRows)
        return part

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
    def formed(self) -> bool:
        return not self.implicit

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
        of = lambda rows, k: self._over_chunks(lambda others, _: rows.mv(others.matrix.T))
        blocks = self._over_chunks(of)  # (K, K, m/K, m/K)
        return self._weight * blocks.transpose(0, 2, 1, 3).reshape(m, m)

    def mv(self, v: jax.Array) -> jax.Array:
        images = self._over_chunks(lambda rows, k: rows.mv(v))
        return math.sqrt(self._weight) * images.reshape(-1, *v.shape[1:])

    def mvt(self, u: jax.Array) -> jax.Array:
        cut = u.reshape(self._count, -1, *u.shape[1:])
        return math.sqrt(self._weight) * self._total(lambda rows, k: rows.mvt(cut[k]))


def rows_of(op: Operator) -> AnyRows | None:
    """The rows of a Gauss-Newton or Fisher matrix; ``None`` of another operator."""
    if isinstance(op, Chunks):
        return ChunkedRows(op)
    if isinstance(op, KnownGram):
        return ImplicitRows(op, op.outputs_gram)
    if not isinstance(op, GaussNewton):
        return None
    matrix, residual = op.factor(), op.residual()
    zeros = jnp.zeros(matrix.shape[0], matrix.dtype)
    return Rows(matrix, zeros if residual is None else residual, op.jacobian.passes)


def implicit_rows(op: Operator) -> AnyRows | None:
    """The same by products alone: nothing of the size of ``R`` is ever formed."""
    if isinstance(op, Chunks):
        return ChunkedRows(op, implicit=True)
    return ImplicitRows(op) if isinstance(op, GaussNewton) else None
