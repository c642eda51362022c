"""The base class of curvature operators, and their algebra."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder import tree
from secondorder.operators._dense import matrix_of_products, ravel
from secondorder.operators._rows import AnyRows
from secondorder.tree import Params, Scalar


class Operator:
    """A symmetric linear map ``B``: ``params → params``, defined by its products.

    ``mv(v)`` is ``B v``; ``A + B``, ``c * B`` and ``B.damped(λ)``, which is ``B + λ I``, are
    operators again; :func:`secondorder.dense` gives the matrix. Vectors have the structure and
    shapes of the parameters, in any float dtype: a product is computed in the parameters' dtype and
    returned in the dtype of ``v``. The other methods are optional; by default they raise an error
    with a sentence.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> B = so.hessian(lambda p: jnp.sum(p**2), jnp.zeros(2))
      >>> isinstance(B, so.Operator), B.mv(jnp.ones(2)).tolist()
      (True, [2.0, 2.0])
    """

    semidefinite = False  # whether it is positive semi-definite by its form
    __array_ufunc__ = None  # NumPy's `array * B` raises instead of mapping over the array

    def __init_subclass__(cls) -> None:
        # A dataclass would print every entry of the parameters.
        cls.__repr__ = vars(cls).get("__repr__", Operator.__repr__)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} operator: mv(v) multiplies, so.dense(op, params) forms it>"

    def mv(self, v: Params) -> Params:
        """``B v``."""
        raise TypeError(f"{type(self).__name__} defines no product mv(v).")

    def gram(self, *vectors: Params) -> jax.Array:
        """``vᵢ · B vⱼ`` for all pairs, ``(k, k)``: ``B`` restricted to the span of the vectors."""
        images = [self.mv(v) for v in vectors]
        rows = [jnp.stack([tree.vdot(v, image) for image in images]) for v in vectors]
        matrix = jnp.stack(rows)
        return 0.5 * (matrix + matrix.T)

    def matrix(self, like: Params) -> jax.Array:
        """The matrix of ``B``; structured operators need no product per column."""
        return matrix_of_products(self.mv, like)

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``(B + λ I)⁻¹ v``, or an approximation of it."""
        raise TypeError(
            f"The solver needs the inverse of the curvature, but a {type(self).__name__} has none "
            "in closed form. Use curvature.preconditioned(exact(ggn), curvature.layerwise(example))"
            " or curvature.diagonal(), or a solver by products, such as direct() or cg()."
        )

    def rows(self, formed: bool = True, matrix: jax.Array | None = None) -> AnyRows:
        """``R`` with ``B = RᵀR``.

        Args:
          formed: whether ``R`` may be formed; False for products only.
          matrix: ``R``, if it was formed in one piece before.
        """
        raise self._without_rows("")

    def gauss_newton(self) -> Any:
        """The :class:`GaussNewton` matrix with the rows of ``B``, in one piece."""
        raise self._without_rows(" of an objective that is not chunked")

    def _without_rows(self, which: str) -> TypeError:
        return TypeError(
            "The solver needs the rows of a Gauss-Newton or Fisher matrix, but the curvature is a "
            f"{type(self).__name__}. Use exact(ggn){which}, or the direct() solver."
        )

    def bends(self, order: int) -> bool:
        """Whether the model's outputs have the derivatives for a path of this order."""
        del order
        return False

    def layer_blocks(self) -> tuple[Sequence[tuple[int, ...]], Sequence[Operator]]:
        """The leaves of each layer, and the diagonal block of each."""
        raise TypeError(
            "The solver needs the blocks of layers, but the curvature is a "
            f"{type(self).__name__}. Use curvature.block_diagonal(), alone or within "
            "curvature.preconditioned(exact(ggn), curvature.block_diagonal())."
        )

    def __add__(self, other: Operator) -> Operator:
        if not isinstance(other, Operator):
            return NotImplemented
        return Sum(self, other)

    def __mul__(self, factor: Scalar) -> Operator:
        if not isinstance(factor, (int, float)) and getattr(factor, "shape", None) != ():
            return NotImplemented
        return Scaled(factor, self)

    __rmul__ = __mul__

    def damped(self, damping: Scalar) -> Operator:
        """``B + λ I``."""
        return self + damping * Identity()


@dataclasses.dataclass(frozen=True, eq=False)
class Function(Operator):
    """An operator from a linear function, with the dtype of its products.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.operators.Function(lambda v: v[::-1], jnp.zeros(2)).mv(jnp.array([1.0, 2.0])).tolist()
      [2.0, 1.0]
    """

    product: Callable[[Params], Params]
    like: Params

    def mv(self, v: Params) -> Params:
        tree.check_match(v, self.like, "the vector v", "the operator's parameters")
        return tree.cast(self.product(tree.cast(v, self.like)), v)


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(Operator):
    """``A + B``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> B = so.operators.Identity() + so.operators.Identity()
      >>> isinstance(B, so.operators.Sum), B.mv(jnp.ones(2)).tolist()
      (True, [2.0, 2.0])
    """

    left: Operator
    right: Operator

    @property
    def semidefinite(self) -> bool:
        return self.left.semidefinite and self.right.semidefinite

    def mv(self, v: Params) -> Params:
        return tree.add(self.left.mv(v), self.right.mv(v))

    def matrix(self, like: Params) -> jax.Array:
        return self.left.matrix(like) + self.right.matrix(like)


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(Operator):
    """``c B``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> B = 3.0 * so.operators.Identity()
      >>> isinstance(B, so.operators.Scaled), B.mv(jnp.ones(2)).tolist()
      (True, [3.0, 3.0])
    """

    factor: Scalar
    base: Operator

    @property
    def semidefinite(self) -> bool:
        known = not isinstance(self.factor, Tracer)
        return self.base.semidefinite and known and bool(np.asarray(self.factor) >= 0)

    def mv(self, v: Params) -> Params:
        return tree.scale(self.factor, self.base.mv(v))

    def matrix(self, like: Params) -> jax.Array:
        return jnp.asarray(self.factor) * self.base.matrix(like)


class Identity(Operator):
    """``I``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.operators.Identity().mv(jnp.ones(2)).tolist()
      [1.0, 1.0]
    """

    semidefinite = True

    def mv(self, v: Params) -> Params:
        return v

    def matrix(self, like: Params) -> jax.Array:
        return jnp.eye(tree.size(like), dtype=tree.dtype(like))

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``v / (1 + λ)``."""
        return tree.scale(1 / (1 + damping), v)


@dataclasses.dataclass(frozen=True, eq=False)
class Diagonal(Operator):
    """``diag(entries)``, entries shaped like the parameters.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.operators.Diagonal(jnp.array([1.0, 2.0])).mv(jnp.ones(2)).tolist()
      [1.0, 2.0]
    """

    entries: Params

    def mv(self, v: Params) -> Params:
        tree.check_match(v, self.entries, "the vector v", "the operator's diagonal")
        return tree.cast(jax.tree.map(jnp.multiply, self.entries, v), v)

    def matrix(self, like: Params) -> jax.Array:
        return jnp.diag(ravel(self.entries))

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``vᵢ / (|entriesᵢ| + λ)``, the denominator at least at the largest entry's rounding."""
        size = jax.tree.map(lambda d: jnp.abs(d) + damping, tree.accumulator(self.entries))
        peak = tree.max_abs(size)
        floor = jnp.finfo(peak.dtype).eps * jnp.where(peak > 0, peak, 1)
        floored = jax.tree.map(lambda d: jnp.maximum(d, floor.astype(d.dtype)), size)
        return jax.tree.map(lambda x, d: (x / d).astype(x.dtype), v, floored)


@dataclasses.dataclass(frozen=True, eq=False)
class Preconditioned(Operator):
    """Exact products of one operator, approximate inverse of another.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> base = so.operators.Diagonal(2 * jnp.ones(2))
      >>> B = so.operators.Preconditioned(base, so.operators.Identity())
      >>> B.mv(jnp.ones(2)).tolist()
      [2.0, 2.0]
    """

    base: Operator
    approximation: Operator

    @property
    def semidefinite(self) -> bool:
        return self.base.semidefinite

    def mv(self, v: Params) -> Params:
        return self.base.mv(v)

    def gram(self, *vectors: Params) -> jax.Array:
        return self.base.gram(*vectors)

    def matrix(self, like: Params) -> jax.Array:
        return self.base.matrix(like)

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``≈ (B + λ I)⁻¹ v``."""
        return self.approximation.solve(v, damping)

    def layer_blocks(self) -> tuple[Sequence[tuple[int, ...]], Sequence[Operator]]:
        return self.approximation.layer_blocks()
