"""A diagonal that is known to be nonnegative: divided by as it is, without a floor.

This differs from ``base.Diagonal`` in that it takes no absolute values and guards nothing but zero,
so a method's own ε means what its paper says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators.base import Diagonal
from secondorder.tree import Params, Scalar


@dataclasses.dataclass(frozen=True, eq=False)
class PositiveDiagonal(Diagonal):
    """``diag(entries)``, ``entries ≥ 0`` shaped like the parameters."""

    def _apply(self, v: Params, fn: Callable[[jax.Array], jax.Array]) -> Params:
        def leaf(x, d):
            scale = fn(d)
            # A zero curvature without damping has no inverse; the step is zero there.
            scale = jnp.where(jnp.isposinf(scale) & (d == 0), 0, scale)
            return (x.astype(d.dtype) * scale).astype(x.dtype)

        return jax.tree.map(leaf, v, tree.accumulator(self.entries))

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``vᵢ / (entriesᵢ + λ)``."""
        return self._apply(v, lambda d: 1 / (d + jnp.asarray(damping, d.dtype)))

    def power(self, v: Params, p: Scalar, damping: Scalar) -> Params:
        """``(entriesᵢ + λ)ᵖ vᵢ``."""
        return self._apply(v, lambda d: (d + jnp.asarray(damping, d.dtype)) ** p)
