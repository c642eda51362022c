"""Largest eigenvalues and condition number, by Lanczos' process."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators import _lanczos as lanczos
from secondorder.operators._base import Operator
from secondorder.spectrum._krylov import beyond, ritz, rounding
from secondorder.spectrum._probes import Reading, brief, check_count
from secondorder.tree import Params


class Eigenpairs(NamedTuple):
    """Eigenvalues and eigenvectors.

    Attributes:
      value: ``(count,)``, the largest first.
      standard_error: ``(count,)``, the residual norms ``‖Bv − wv‖``, rounding of the products
        included: an eigenvalue lies within this distance.
      products: number of products with the operator.
      vectors: a tree of ``(count, *shape)``, orthonormal rows.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> B = so.operators.Diagonal(jnp.array([1.0, 2.0, 4.0]))
      >>> top = so.top_eigenpairs(B, jnp.zeros(3), jax.random.key(0), count=1)
      >>> isinstance(top, so.spectrum.Eigenpairs), round(top.value[0].item(), 3)
      (True, 4.0)
    """

    value: jax.Array
    standard_error: jax.Array
    products: jax.Array
    vectors: Params

    def __repr__(self) -> str:
        return brief(self)


def top_eigenpairs(
    op: Operator, like: Params, key: jax.Array, count: int = 1, *, steps: int | None = None
) -> Eigenpairs:
    """The algebraically largest eigenvalues and their vectors; with ``-1.0 * op``, the smallest.

    Args:
      op: B, of any sign.
      like: a tree shaped like the parameters.
      key: of the random start.
      count: number of pairs.
      steps: products, and vectors of memory; ``None`` takes ``max(2 count + 20, 40)``. At most the
        dimension, where the pairs are exact.

    Raises:
      ValueError: ``count`` below 1, or above the dimension or ``steps``.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> H = so.hessian(lambda p: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * p**2), jnp.ones(3))
      >>> so.top_eigenpairs(H, jnp.ones(3), jax.random.key(0), 2).value.round(4).tolist()
      [6.0, 4.0]

    Source: Parlett (1998), chapter 13.
    """
    check_count("top_eigenpairs", "count", count)
    steps = checked_steps(
        "top_eigenpairs", max(2 * count + 20, 40) if steps is None else steps, like
    )
    if count > steps:
        raise ValueError(
            f"top_eigenpairs got count={count}, but {steps} steps in {tree.size(like)} dimensions "
            "know no more pairs than steps; ask for fewer, or give more steps."
        )
    w, residuals, v, basis = ritz(op, like, key, steps)
    order = jnp.arange(steps - 1, steps - 1 - count, -1)
    vectors = jax.vmap(lambda c: lanczos.combine(c, basis.vectors))(v[:, order].T)
    return Eigenpairs(w[order], residuals[order], jnp.asarray(steps, jnp.int32), vectors)


def condition_number(op: Operator, like: Params, key: jax.Array, *, steps: int = 100) -> Reading:
    """``κ = w_max / w_min`` of a positive definite B; infinite where an eigenvalue is not positive.

    An eigenvalue below the rounding of the largest counts as not positive. Ritz values lie within
    the spectrum, so fewer steps than dimensions give a lower bound; with probability 0.98 κ is at
    most ``value + standard_error``, which is infinite until the steps bound the lowest eigenvalue.

    Args:
      op: B.
      like: a tree shaped like the parameters.
      key: of the random start.
      steps: products, and vectors of memory; at most the dimension.

    Raises:
      ValueError: ``steps`` below 1.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> H = so.hessian(lambda p: jnp.sum(jnp.array([1.0, 2.0, 4.0]) * p**2), jnp.ones(3))
      >>> round(float(so.condition_number(H, jnp.ones(3), jax.random.key(0)).value), 4)
      4.0

    Source: van Dorsselaer, Hochstenbach and van der Vorst (2000) for the error.
    """
    steps = checked_steps("condition_number", steps, like)
    w, _, _, basis = ritz(op, like, key, steps)
    low, high, doubt = w[0], w[-1], rounding(w, like)
    below, above = beyond(w, basis, tree.size(like))
    positive = low > doubt
    value = jnp.where(positive, high / jnp.where(positive, low, 1), jnp.inf)
    value = tree.nan_unless(jnp.isfinite(low) & jnp.isfinite(high), value)
    lowest, highest = low - below - doubt, high + above + doubt
    bounded = lowest > 0
    most = jnp.where(bounded, highest / jnp.where(bounded, lowest, 1), jnp.inf)
    error = jnp.where(positive, most - jnp.where(positive, value, 0), jnp.inf)
    return Reading(value, error, jnp.asarray(steps, jnp.int32))


def checked_steps(user: str, steps: int, like: Params) -> int:
    """``steps``, at most the dimension; an error for no steps, or a tree without entries."""
    check_count(user, "steps", steps)
    tree.check_real(like, "like")
    size = tree.size(like)
    if size == 0:
        raise ValueError(f"{user} got a tree without entries as `like`: there is no spectrum.")
    return min(steps, size)
