"""A nonlinear least-squares problem whose answer is known, and where to start on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class TestProblem:
    """``f(params) = Σ residual(params)²``, without the half of ``so.sum_of_squares``."""

    number: int
    """Its number in Moré, Garbow and Hillstrom (1981)."""
    name: str
    residual: Callable[[jax.Array], jax.Array]
    """A vector of n parameters ↦ a vector of m residuals, in the dtype of the parameters."""
    start: tuple[float, ...]
    """The standard start. ``jnp.asarray`` makes it parameters, in float64 where that is on."""
    minima: tuple[float, ...]
    """Values of f at its known local minima, the least first; empty where none is known.

    The published six digits are carried on to about ten. No list claims to hold every minimum.
    """

    __test__ = False  # pytest would take the name for a class of tests

    @property
    def n(self) -> int:
        """The number of parameters."""
        return len(self.start)

    @property
    def m(self) -> int:
        """The number of residuals."""
        params = jax.ShapeDtypeStruct((self.n,), jnp.float32)
        return jax.eval_shape(self.residual, params).shape[0]

    def function(self, params: jax.Array) -> jax.Array:
        """f itself, the sum of squares."""
        return jnp.sum(self.residual(params) ** 2)


def starts(problem: TestProblem, factors: Sequence[float] = (1, 10, 100)) -> list[jax.Array]:
    """The standard start and its multiples, for a look at robustness.

    Watson's standard start is zero. Its "multiples" are constant vectors of the factor itself, as
    in the drivers of MINPACK. Every other start is multiplied, its zeros stay zeros.

    Ten times the start of ``gulf`` is its solution; from a hundred times its start the gradient is
    exactly zero. A hundred times the start of ``jennrich-sampson`` overflows in float64.
    """
    start = jnp.asarray(problem.start)
    if any(problem.start):
        return [factor * start for factor in factors]
    return [start if factor == 1 else jnp.full_like(start, factor) for factor in factors]


def like(params: jax.Array, numbers) -> jax.Array:
    """Constants in the dtype of the parameters, so that float32 stays float32."""
    return jnp.asarray(numbers, jnp.result_type(params))
