"""Trace and diagonal by random probes: ``E[z·Bz] = tr B`` and ``E[z ∘ Bz] = diag B``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators.base import Operator
from secondorder.tree import Params


class Reading(NamedTuple):
    """What an instrument reads.

    Attributes:
      value: the estimate.
      standard_error: of the mean over the probes; infinity for a single one.
      products: how many products with the operator it took.
    """

    value: Any
    standard_error: Any
    products: jax.Array


def check_count(user: str, name: str, count: int, least: int = 1) -> None:
    """Refuses a number of probes, steps or pairs that is too small."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ValueError(f"{user} got {name}={count!r}; pass an integer of at least {least}.")


def over_probes(one: Callable[[jax.Array], Any], key: jax.Array, samples: int) -> tuple[Any, Any]:
    """Mean and standard error of ``one(key)`` over ``samples`` keys, one after the other.

    By Welford's recurrence: a difference of sums of squares would cancel.
    """

    def step(i, carry):
        mean, spread = carry
        x = one(jax.random.fold_in(key, i))
        new = jax.tree.map(lambda m, y: m + (y - m) / (i + 1), mean, x)
        gained = jax.tree.map(lambda s, y, m, n: s + (y - m) * (y - n), spread, x, mean, new)
        return new, gained

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, jax.random.key(0))
    )
    mean, spread = jax.lax.fori_loop(0, samples, step, (zeros, zeros))
    if samples == 1:
        return mean, jax.tree.map(lambda s: jnp.full_like(s, jnp.inf), spread)
    count = samples * (samples - 1)
    return mean, jax.tree.map(lambda s: jnp.sqrt(jnp.maximum(s, 0) / count), spread)


def trace(op: Operator, like: Params, key: jax.Array, *, samples: int = 32) -> Reading:
    """``tr B ≈ mean z·Bz`` over random signs ``z``.

    One probe has variance ``2 (‖B‖_F² − Σ Bᵢᵢ²)``: none where B is diagonal.

    Args:
      op: B, of any sign.
      like: a tree shaped like the parameters.
      key: of the probes.
      samples: how many.

    Raises:
      ValueError: ``samples`` below 1.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> H = so.hessian(lambda p: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * p**2), jnp.ones(3))
      >>> float(so.trace(H, jnp.ones(3), jax.random.key(0)).value)
      12.0

    Source: Hutchinson (1989).
    """
    check_count("trace", "samples", samples)

    def one(key):
        z = tree.random_signs(key, like)
        return tree.vdot(z, op.mv(z))

    return Reading(*over_probes(one, key, samples), jnp.asarray(samples, jnp.int32))


def diagonal(op: Operator, like: Params, key: jax.Array, *, samples: int = 32) -> Reading:
    """``diag B ≈ mean z ∘ Bz`` over random signs ``z``; a tree shaped like the parameters.

    Entry i of one probe has variance ``Σⱼ≠ᵢ Bᵢⱼ²``.

    Args:
      op: B, of any sign.
      like: a tree shaped like the parameters.
      key: of the probes.
      samples: how many.

    Raises:
      ValueError: ``samples`` below 1.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> H = so.hessian(lambda p: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * p**2), jnp.ones(3))
      >>> so.diagonal(H, jnp.ones(3), jax.random.key(0), samples=1).value.tolist()
      [2.0, 4.0, 6.0]

    Source: Bekas, Kokiopoulou and Saad (2007).
    """
    check_count("diagonal", "samples", samples)

    def one(key):
        z = tree.random_signs(key, like)
        return jax.tree.map(jnp.multiply, z, op.mv(z))

    return Reading(*over_probes(one, key, samples), jnp.asarray(samples, jnp.int32))
