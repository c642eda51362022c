"""An objective during one update, with the bounds and Jacobian that the caller supplies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder.losses import Outputs
from secondorder.objectives._base import AnyObjective, Result, objective_of
from secondorder.objectives._models import Known
from secondorder.tree import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """The feasible set of a step from ``params``: inside the bounds, along free parameters.

    Attributes:
      lower, upper: the bounds, trees like the parameters.
      params: the point.
      grad: the gradient there, of all parameters.
      free: mask of the parameters that may move: all but those held at a bound by the gradient.
    """

    lower: Params
    upper: Params
    params: Params
    grad: Params
    free: Params

    def onto(self, p: Params) -> Params:
        """The projection of ``p``; on a bound its derivative is that of the identity."""

        def leaf(x, low, high, here, free):
            inside = jnp.where(x < low, low, jnp.where(x > high, high, x))
            return jnp.where(free, inside, here).astype(x.dtype)

        return jax.tree.map(leaf, p, self.lower, self.upper, self.params, self.free)

    def cut(self, direction: Params) -> Params:
        """A step from the point cut at the bounds, zero along parameters that are held."""

        def leaf(d, x, low, high, free):
            x, low, high = (y.astype(d.dtype) for y in (x, low, high))
            inside = jnp.where(x + d < low, low - x, jnp.where(x + d > high, high - x, d))
            return jnp.where(free, inside, 0)

        return jax.tree.map(leaf, direction, self.params, self.lower, self.upper, self.free)


@dataclasses.dataclass(frozen=True, eq=False)
class AtPoint(AnyObjective):
    """An objective with the bounds and Jacobian of one update.

    Attributes:
      objective: the objective; with bounds it is ``f ∘ face.onto``, so that a search along any ray,
        also of another library, follows the projected path.
      stationary: whether it is the same function at every update, as inside ``minimize``, so that
        the factors of a point serve the next trial there. It has derivatives in both modes.
      face: the feasible set; ``None`` without bounds.
      jacobian: point, outputs and dense Jacobian of the model; ``None`` if not available.
    """

    objective: AnyObjective
    stationary: bool = False
    face: Face | None = None
    jacobian: tuple[Params, Outputs, Any] | None = None

    def __call__(self, params: Params) -> jax.Array:
        return self.objective(params)

    def __getattr__(self, name: str) -> Any:
        """Fields of the objective, such as its ``loss`` and ``model``."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.objective, name)

    @property
    def is_split(self) -> bool:
        return self.objective.is_split

    @property
    def curved(self) -> AtPoint:
        other = self.objective.curved
        return self if other is self.objective else dataclasses.replace(self, objective=other)

    @property
    def held(self) -> Params | None:
        """Mask of the parameters on a bound; ``None`` without bounds."""
        return None if self.face is None else jax.tree.map(jnp.logical_not, self.face.free)

    def on(self, face: Face) -> AtPoint:
        """The objective inside bounds."""
        return dataclasses.replace(self, objective=self.objective.before(face.onto), face=face)

    def before(self, change: Callable[[Params], Params]) -> AnyObjective:
        return self.objective.before(change)

    def split(self, user: str) -> Any:
        found = self.objective.split(user)
        if self.jacobian is None:
            return found
        return dataclasses.replace(found, model=Known(found.model, *self.jacobian))

    def by_parts(self, one: Callable[[Any], Result], many: Callable[[Any], Result]) -> Result:
        return self.objective.by_parts(lambda whole: one(self), many)

    def first_part(self) -> AnyObjective:
        return self.objective.first_part()


def at_point(value_fn: Callable | None, user: str) -> AtPoint:
    """The ``value_fn`` of an update: any function, or ``None`` where none is needed."""
    if isinstance(value_fn, AtPoint):
        return value_fn
    return AtPoint(objective_of(value_fn or _absent, user))


def _absent(params: Params) -> Any:
    raise ValueError("This method evaluates the objective, but update was called without value_fn.")
