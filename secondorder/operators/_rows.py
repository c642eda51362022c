"""The rows ``R`` with ``B = RᵀR``, as a matrix or by products, and their two Grams.

``R`` has a row per output and a column per parameter, ``(m, n)``. Either Gram solves
``(B + λ I) d = −g``: ``RᵀR`` in parameter space, ``R Rᵀ`` in sample space.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._jacobian import Jacobian
from secondorder.operators._middle import Middle


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


class AnyRows(Protocol):
    """``R`` of shape ``(m, n)``, as an interface for solvers."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def matrix(self) -> jax.Array | None:
        """``R`` if it is formed in one piece, else ``None``."""
        ...

    @property
    def residual(self) -> jax.Array:
        """``r`` with ``Rᵀ r`` the gradient, ``(m,)``; zero if the curvature has no residual."""
        ...

    @property
    def passes(self) -> int:
        """The cost of the smaller Gram, in Jacobian passes."""
        ...

    @property
    def formed(self) -> bool:
        """Whether ``R`` is formed, in one piece or in chunks."""
        ...

    def parameter_gram(self) -> jax.Array: ...

    def sample_gram(self) -> jax.Array: ...

    def mv(self, v: jax.Array, /) -> jax.Array: ...

    def mvt(self, u: jax.Array, /) -> jax.Array: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """``R`` as a matrix.

    Attributes:
      matrix: ``(m, n)``.
      residual: ``r`` with ``Rᵀ r`` the gradient (up to a part outside the rows): ``(m,)``, zero if
        the curvature has no residual.
      passes: cost of forming ``R`` once, in Jacobian passes.
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
        """``R v`` for a vector, or for the columns of a matrix."""
        return _product(self.matrix, v)

    def mvt(self, u: jax.Array) -> jax.Array:
        """``Rᵀ u`` for a vector, or for the columns of a matrix."""
        return _product(self.matrix.T, u)


@dataclasses.dataclass(frozen=True, eq=False)
class ImplicitRows:
    """``R = Sᵀ J`` by products: a forward or a backward pass each.

    Attributes:
      jacobian, middle: ``J`` and ``M = S Sᵀ``.
      square: ``() ↦ RᵀR``.
      gram: ``() ↦ J Jᵀ`` if available, for the Gram of the samples; else ``None``.
    """

    jacobian: Jacobian
    middle: Middle
    square: Callable[[], jax.Array]
    gram: Callable[[], jax.Array] | None = None
    matrix: None = None

    @property
    def formed(self) -> bool:
        m, n = self.shape
        return self.gram is not None and n <= m  # for the parameter Gram

    def _root_transpose(self, columns: jax.Array) -> jax.Array:
        """``Sᵀ`` times columns in the order of the ravelled outputs."""
        wide = tree.accumulator(self.jacobian.outputs)
        of = lambda c: ravel(self.middle.root_transpose(tree.cast(unravel(c, wide), wide)))
        return jax.vmap(of, in_axes=1, out_axes=1)(columns)

    @property
    def shape(self) -> tuple[int, int]:
        at = self.jacobian
        images = jax.eval_shape(self.middle.root_transpose, tree.accumulator(at.outputs))
        return tree.size(images), tree.size(at.params)

    @property
    def residual(self) -> jax.Array:
        r = self.middle.residual()
        return jnp.zeros(self.shape[0], tree.dtype(self.jacobian.params)) if r is None else ravel(r)

    @property
    def passes(self) -> int:
        return self.jacobian.passes

    def parameter_gram(self) -> jax.Array:
        return self.square()

    def sample_gram(self) -> jax.Array:
        """``Sᵀ (J Jᵀ) S``."""
        if self.gram is None:
            raise TypeError("These rows know no Gram of the samples but by products with them.")
        return self._root_transpose(self._root_transpose(self.gram()).T)

    def mv(self, v: jax.Array) -> jax.Array:
        """``R v``, one forward pass."""
        at = self.jacobian
        image = at.mv(tree.cast(unravel(v, at.params), at.params))
        return ravel(self.middle.root_transpose(tree.accumulator(image)))

    def mvt(self, u: jax.Array) -> jax.Array:
        """``Rᵀ u``, one backward pass."""
        at, root = self.jacobian, self.middle.root_transpose
        wide = tree.accumulator(at.outputs)
        like = jax.eval_shape(root, wide)
        (back,) = jax.linear_transpose(root, wide)(tree.cast(unravel(u, like), like))
        return ravel(at.mvt(back))
