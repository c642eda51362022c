"""The base class of objectives: a function of the parameters, in one part or a sum of parts."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from secondorder import checks
from secondorder.tree import Params

Result = TypeVar("Result")


class AnyObjective(abc.ABC):
    """An objective of any kind: called like a function of the parameters.

    Attributes:
      is_split: whether loss and model are available separately, for the rows of the Jacobian.
      curved: source of the curvature: the objective itself, or another one.
    """

    is_split = False

    @abc.abstractmethod
    def __call__(self, params: Params) -> jax.Array: ...

    @property
    def curved(self) -> AnyObjective:
        return self

    @abc.abstractmethod
    def before(self, change: Callable[[Params], Params]) -> AnyObjective:
        """``f ∘ change``, of the same kind."""

    def as_given(self) -> Callable[[Params], jax.Array]:
        """The objective as a user gave it: a plain function without its wrapper."""
        return self

    @abc.abstractmethod
    def split(self, user: str) -> Any:
        """The objective with ``loss`` and ``model``, else a ``TypeError`` that names ``user``."""

    def by_parts(self, one: Callable[[Any], Result], many: Callable[[Any], Result]) -> Result:
        """``one(objective)``, or ``many(objective)`` of a sum over chunks."""
        del many
        return one(self)

    def first_part(self) -> AnyObjective:
        """The first term of a sum (all use the parameters in the same way), or itself."""
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class Plain(AnyObjective):
    """A function of the parameters without a split into loss and model."""

    fn: Callable[[Params], jax.Array]

    def __call__(self, params: Params) -> jax.Array:
        return self.fn(params)

    def __getattr__(self, name: str) -> Any:
        """Fields of a user's callable, which a user's estimator may read."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.fn, name)

    def before(self, change: Callable[[Params], Params]) -> Plain:
        return Plain(lambda p: self.fn(change(p)))

    def as_given(self) -> Callable[[Params], jax.Array]:
        return self.fn

    def split(self, user: str) -> Any:
        name = getattr(self.fn, "__name__", "value_fn")
        raise TypeError(
            f"{user} needs the split of the objective into loss and model, but {name} is a plain "
            "function. Pass value_fn=secondorder.compose(loss, model), or "
            "secondorder.sum_of_squares(residual) for least squares."
        )


def is_objective(value_fn: object) -> bool:
    """Whether a function is an objective of the library."""
    return isinstance(value_fn, AnyObjective)


def objective_of(value_fn: Callable, user: str | None = None) -> AnyObjective:
    """An objective of the library as it is, any other function as :class:`Plain`.

    Args:
      user: name of the caller, for a check that a plain function returns one number.
    """
    if isinstance(value_fn, AnyObjective):
        return value_fn
    return Plain(value_fn if user is None else checks.number(value_fn, user))
