"""The middle ``M`` of ``Jᵀ M J``: a curvature of the outputs with a root ``M = S Sᵀ``."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp

from secondorder import losses
from secondorder.losses import Outputs


class Middle(Protocol):
    """``M`` on the outputs: its product, the transpose of its root, and an optional residual."""

    def mv(self, u: Outputs) -> Outputs: ...

    def root_transpose(self, u: Outputs) -> Outputs: ...

    def residual(self) -> Outputs | None:
        """``r`` with ``S r`` the gradient with respect to the outputs; ``None`` without one."""

    @property
    def least_squares(self) -> bool:
        """Whether the objective is ``½‖r‖²``, so that angles to ``r`` measure optimality."""
        ...

    @property
    def semidefinite(self) -> bool:
        """Whether ``M`` is positive semi-definite by its form."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class LossCurvature:
    """``M = ∇²ℓ(z)``."""

    loss: losses.Loss
    outputs: Outputs

    def mv(self, u: Outputs) -> Outputs:
        return self.loss.curvature(self.outputs, u)

    def root_transpose(self, u: Outputs) -> Outputs:
        return self.loss.root_transpose(self.outputs, u)

    def residual(self) -> Outputs:
        return self.loss.residual(self.outputs)

    @property
    def least_squares(self) -> bool:
        return self.loss.least_squares

    @property
    def semidefinite(self) -> bool:
        return self.loss.semidefinite


class _OfScores:
    """Outer products of scores: semidefinite, and without a residual."""

    least_squares = False
    semidefinite = True

    def residual(self) -> None:
        return None


@dataclasses.dataclass(frozen=True, eq=False)
class OuterProducts(_OfScores):
    """``M = blockdiagₙ (1/S) Σₛ vₛₙ vₛₙᵀ``: scores ``v`` with a leading axis of S samples.

    Each block belongs to one example. Products between scores of different examples have
    expectation zero and are left out.
    """

    scores: Outputs
    loss: losses.Loss

    def _coefficients(self, u: Outputs) -> Outputs:
        """``vₛₙ · uₙ`` for every sample and example, summed over the leaves of the outputs."""

        def of_leaf(v, x):
            axes = tuple(range(1 + self.loss.example_axes(x), v.ndim))
            return jnp.sum(v * x[None].astype(v.dtype), axis=axes)

        leaves = jax.tree.leaves(jax.tree.map(of_leaf, self.scores, u))
        count = jax.tree.leaves(self.scores)[0].shape[0]
        return sum(leaves) / math.sqrt(count)

    def mv(self, u: Outputs) -> Outputs:
        c = self._coefficients(u)
        count = c.shape[0]

        def of_leaf(v, x):
            wide = c.reshape(c.shape + (1,) * (v.ndim - c.ndim))
            return (jnp.sum(wide * v, axis=0) / math.sqrt(count)).astype(x.dtype)

        return jax.tree.map(of_leaf, self.scores, u)

    def root_transpose(self, u: Outputs) -> Outputs:
        return self._coefficients(u)


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks(_OfScores):
    """The outer products of a sum of losses, term by term: each term has its own examples."""

    blocks: tuple[OuterProducts | Blocks, ...]
    loss: losses.Total

    def _each(self, name: str, u: Outputs) -> Outputs:
        pairs = zip(self.blocks, self.loss.split(u), strict=True)
        return self.loss.join([getattr(block, name)(x) for block, x in pairs], u)

    def mv(self, u: Outputs) -> Outputs:
        return self._each("mv", u)

    def root_transpose(self, u: Outputs) -> Outputs:
        return self._each("root_transpose", u)


def outer_products(scores: Outputs, loss: losses.Loss, outputs: Outputs) -> OuterProducts | Blocks:
    if isinstance(loss, losses.Total):
        parts = zip(loss.split(scores), loss.terms, loss.split(outputs), strict=True)
        return Blocks(tuple(outer_products(*part) for part in parts), loss)
    losses.count_examples(outputs)
    return OuterProducts(scores, loss)
