"""A diagonal that is known to be nonnegative: divided by as it is, without a floor.

This differs from ``base.Diagonal`` in that it takes no absolute values and guards nothing but zero,
so a method's own ε means what its paper says.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators._base import Diagonal
from secondorder.tree import Params, Scalar


def damped_power(entries: jax.Array, p: Scalar, damping: Scalar) -> jax.Array:
    """``(entries + λ)ᵖ``; zero where a zero curvature without damping has no inverse."""
    power = (entries + jnp.asarray(damping, entries.dtype)) ** p
    return jnp.where(jnp.isposinf(power) & (entries == 0), 0, power)


@dataclasses.dataclass(frozen=True, eq=False)
class PositiveDiagonal(Diagonal):
    """``diag(entries)``, ``entries ≥ 0`` shaped like the parameters."""

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``vᵢ / (entriesᵢ + λ)``."""
        return self.power(v, -1, damping)

    def power(self, v: Params, p: Scalar, damping: Scalar) -> Params:
        """``(entriesᵢ + λ)ᵖ vᵢ``."""
        leaf = lambda x, d: (x.astype(d.dtype) * damped_power(d, p, damping)).astype(x.dtype)
        return jax.tree.map(leaf, v, tree.accumulator(self.entries))


@dataclasses.dataclass(frozen=True, eq=False)
class SoftenedDiagonal(PositiveDiagonal):
    """``diag(entries)``, whose inverse is taken to a power below 1.

    Attributes:
      exponent: 0 for no effect, 1 for the inverse.
    """

    exponent: float = 0.75

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``vᵢ / (entriesᵢ + λ)^exponent``."""
        return self.power(v, -self.exponent, damping)
