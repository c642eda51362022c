"""Sum of losses of separate outputs: ``M`` and its root are block-diagonal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from secondorder.losses._base import Loss, Outputs
from secondorder.losses._generic import as_loss


@dataclasses.dataclass(frozen=True, eq=False)
class Total(Loss):
    """``Σₖ ℓₖ(zₖ)`` of the outputs ``(z₁, z₂, …)``.

    Each term has its own examples and weight, so the sum has neither ``weight`` nor
    ``example_axes``. A sample draws the targets of all terms independently.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> loss = so.losses.total(so.squared_error(jnp.zeros(2)), so.losses.half_sum_of_squares())
      >>> isinstance(loss, so.losses.Total), loss((jnp.ones(2), jnp.ones(3))).item()
      (True, 2.0)
    """

    terms: tuple[Loss, ...]

    def __post_init__(self):
        measured = all(term.least_squares for term in self.terms)
        object.__setattr__(self, "least_squares", measured)
        semidefinite = all(term.semidefinite for term in self.terms)
        object.__setattr__(self, "semidefinite", semidefinite)

    def split(self, outputs: Outputs) -> list[Outputs]:
        """The outputs as a list, one for each term."""
        parts = list(outputs) if isinstance(outputs, (tuple, list)) else None
        if parts is None or len(parts) != len(self.terms):
            raise ValueError(
                f"A total of {len(self.terms)} losses needs the model to return a tuple of "
                f"{len(self.terms)} outputs, one for each, but it returned "
                f"{jax.tree.structure(outputs)}."
            )
        return parts

    def join(self, parts: Sequence[Any], outputs: Outputs) -> Outputs:
        """``parts``, one for each term, in the container type of ``outputs``."""
        shallow = jax.tree.structure(outputs, is_leaf=lambda x: x is not outputs)
        return jax.tree.unflatten(shallow, list(parts))

    def _each(self, name: str, outputs: Outputs, *rest: Outputs) -> Outputs:
        columns = zip(self.terms, self.split(outputs), *map(self.split, rest), strict=True)
        return self.join([getattr(term, name)(*parts) for term, *parts in columns], outputs)

    def __call__(self, outputs: Outputs) -> jax.Array:
        parts = zip(self.terms, self.split(outputs), strict=True)
        first, *others = [term(z) for term, z in parts]
        return sum(others, first)

    def curvature(self, outputs: Outputs, v: Outputs) -> Outputs:
        return self._each("curvature", outputs, v)

    def root(self, outputs: Outputs, u: Outputs) -> Outputs:
        return self._each("root", outputs, u)

    def signed(self, outputs: Outputs, signs: Outputs) -> Outputs:
        return self._each("signed", outputs, signs)

    @property
    def is_likelihood(self) -> bool:
        return all(term.is_likelihood for term in self.terms)

    def root_transpose(self, outputs: Outputs, v: Outputs) -> Outputs:
        return self._each("root_transpose", outputs, v)

    def residual(self, outputs: Outputs) -> Outputs:
        return self._each("residual", outputs)

    def sample(self, key: jax.Array, outputs: Outputs) -> Outputs:
        parts = enumerate(zip(self.terms, self.split(outputs), strict=True))
        drawn = [term.sample(jax.random.fold_in(key, k), z) for k, (term, z) in parts]
        return self.join(drawn, outputs)

    def weight(self, outputs: Outputs) -> float:
        raise TypeError(
            "A total of losses has no examples of its own: those of one term are not those of "
            "another, and a penalty has none. Use ggn(objective, params), fisher(objective, "
            "params), or an objective of one loss."
        )

    def example_axes(self, output: jax.Array) -> int:
        raise TypeError("A total of losses has no examples of its own; each of its terms has.")


def total(*terms: Callable[[Outputs], jax.Array]) -> Loss:
    """``ℓ(z₁, z₂, …) = Σₖ ℓₖ(zₖ)``: a sum of losses, for a model that returns a tuple of outputs.

    Its curvature is that of its terms. An L2 penalty is a sum of squares of scaled parameters that
    the model returns as an output, so Gauss-Newton methods include it. (An objective by
    ``per_example`` would count it once for each example: use ``compose``.)

    Args:
      terms: losses of the library, or any scalar functions of one output.

    Raises:
      TypeError: a term that is not a function, such as a list of losses.
      ValueError: no terms; when called, outputs that are not a tuple of as many.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x, labels, strength = jnp.array([[1.0], [2.0]]), jnp.array([0.0, 1.0]), 0.25
      >>> ridge = so.losses.total(so.sigmoid_cross_entropy(labels), so.losses.half_sum_of_squares())
      >>> f = so.compose(ridge, lambda p: (x @ p, strength**0.5 * p))
      >>> round(float(f(jnp.array([2.0]))), 4)  # ½ 0.25 2² of it is the penalty
      1.5725
    """
    if not terms:
        raise ValueError("total needs at least one loss: total(first, second, ...).")
    if not all(map(callable, terms)):
        raise TypeError(f"total needs losses, one by one: total(first, second, ...), not {terms}.")
    return Total(tuple(map(as_loss, terms)))
