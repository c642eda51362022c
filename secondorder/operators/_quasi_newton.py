"""Quasi-Newton operators: dense matrices and limited memory, from differences of gradients.

With ``s = x⁺ − x`` and ``y = g⁺ − g`` each of these satisfies the secant equation ``B⁺ s = y``.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg import _lapack as lapack
from secondorder.operators._base import Operator
from secondorder.operators._dense import ravel, unravel
from secondorder.tree import Params, Scalar

HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True, eq=False)
class Matrix(Operator):
    """A symmetric matrix ``(n, n)`` as an operator, in the order of the tree's leaves."""

    entries: jax.Array

    def mv(self, v: Params) -> Params:
        return _product(self.entries, v)

    def matrix(self, like: Params) -> jax.Array:
        return self.entries


@dataclasses.dataclass(frozen=True, eq=False)
class InverseMatrix(Operator):
    """The operator with the *inverse* ``H``, a matrix: a solve costs one product."""

    inverse: jax.Array

    def mv(self, v: Params) -> Params:
        return tree.cast(unravel(lapack.solve(self.inverse, ravel(v)), v), v)

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``H v``; the damping has no closed form here and is not applied."""
        del damping
        return _product(self.inverse, v)


def _product(matrix: jax.Array, v: Params) -> Params:
    return tree.cast(unravel(jnp.matmul(matrix, ravel(v), precision=HIGHEST), v), v)


class Pairs(NamedTuple):
    """The last pairs ``(s, y)``, oldest first; unused rows are zero.

    Attributes:
      s, y: trees of ``(memory, *shape)``.
      rho: ``1/(sᵀy)``, zero in unused rows.
      gamma: ``sᵀy / yᵀy`` of the newest pair, the scale of the first matrix.
    """

    s: Params
    y: Params
    rho: jax.Array
    gamma: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class LimitedMemory(Operator):
    """L-BFGS: ``B⁻¹`` from the last pairs by the two-loop recursion (Nocedal 1980)."""

    pairs: Pairs

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``B⁻¹ v``; the damping has no closed form here and is not applied."""
        del damping
        pairs = self.pairs

        def backward(q, pair):
            s, y, rho = pair
            alpha = rho * tree.vdot(s, q)
            return tree.axpy(-alpha, y, q), alpha

        def forward(r, pair):
            s, y, rho, alpha = pair
            beta = rho * tree.vdot(y, r)
            return tree.axpy(alpha - beta, s, r), None

        q, alphas = jax.lax.scan(
            backward, tree.accumulator(v), (pairs.s, pairs.y, pairs.rho), reverse=True
        )
        r, _ = jax.lax.scan(
            forward, tree.scale(pairs.gamma, q), (pairs.s, pairs.y, pairs.rho, alphas)
        )
        return tree.cast(r, v)

    def mv(self, v: Params) -> Params:
        """``B v`` by the direct recursion over the pairs: O(memory²) dots, for diagnostics."""
        pairs = self.pairs
        count = pairs.rho.size
        row = lambda rows, i: jax.tree.map(lambda x: x[i], rows)

        def apply(upto: int, x: Params) -> Params:
            image = tree.scale(1 / pairs.gamma, x)
            for i in range(upto):
                s, y, rho = row(pairs.s, i), row(pairs.y, i), pairs.rho[i]
                bs = images[i]
                sbs = tree.vdot(s, bs)
                down = tree.vdot(bs, x) / jnp.where(sbs > 0, sbs, 1)
                up = rho * tree.vdot(y, x)
                used = rho > 0
                image = tree.axpy(jnp.where(used, -down, 0), bs, image)
                image = tree.axpy(jnp.where(used, up, 0), y, image)
            return image

        images: list[Params] = []
        for i in range(count):
            images.append(apply(i, row(pairs.s, i)))
        return tree.cast(apply(count, tree.accumulator(v)), v)
