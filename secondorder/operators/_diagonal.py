"""Nonnegative diagonals, with an inverse that has no floor.

Unlike ``Diagonal``, they take no absolute values and only guard division by zero, so a method's ε
has the meaning of its paper.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators._base import Diagonal
from secondorder.tree import Params, Scalar


def damped_power(entries: jax.Array, p: Scalar, damping: Scalar) -> jax.Array:
    """``(entries + λ)ᵖ``; zero where a zero entry without damping has no inverse."""
    power = (entries + jnp.asarray(damping, entries.dtype)) ** p
    return jnp.where(jnp.isposinf(power) & (entries == 0), 0, power)


@dataclasses.dataclass(frozen=True, eq=False)
class PositiveDiagonal(Diagonal):
    """``diag(entries)``, ``entries ≥ 0`` shaped like the parameters.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> w = jnp.eye(2)
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.diagonal(), decay=0.9)
      >>> operator, _ = curvature.update(w, curvature.init(w), w, None)
      >>> isinstance(operator, so.operators.PositiveDiagonal)
      True
    """

    semidefinite = True

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``vᵢ / (entriesᵢ + λ)``."""
        return self.power(v, -1, damping)

    def power(self, v: Params, p: Scalar, damping: Scalar) -> Params:
        """``(entriesᵢ + λ)ᵖ vᵢ``."""
        leaf = lambda x, d: (x.astype(d.dtype) * damped_power(d, p, damping)).astype(x.dtype)
        return jax.tree.map(leaf, v, tree.accumulator(self.entries))


@dataclasses.dataclass(frozen=True, eq=False)
class SoftenedDiagonal(PositiveDiagonal):
    """``diag(entries)`` with the inverse raised to a power below 1.

    Attributes:
      exponent: 0 for no effect, 1 for the inverse.
    """

    exponent: float = 0.75

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``vᵢ / (entriesᵢ + λ)^exponent``."""
        return self.power(v, -self.exponent, damping)
