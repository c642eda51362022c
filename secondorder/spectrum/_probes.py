"""Trace and diagonal by random probes: ``E[z·Bz] = tr B`` and ``E[z ∘ Bz] = diag B``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder import tree
from secondorder.operators._base import Operator
from secondorder.tree import Params

SHOWN = 8  # entries of an array that is printed in full


def brief(record: Any) -> str:
    """A result in one line: short arrays in full, the shape of longer ones, the size of trees."""
    parts = (f"{name}={_brief_value(value)}" for name, value in record._asdict().items())
    return f"{type(record).__name__}({', '.join(parts)})"


def _brief_value(value: Any) -> str:
    if not jax.tree_util.all_leaves([value]):
        return f"a tree of {len(jax.tree.leaves(value))} arrays"
    if isinstance(value, Tracer) or np.size(value) > SHOWN:
        return jax.typeof(value).str_short()
    return np.array2string(np.asarray(value), separator=", ")


class Reading(NamedTuple):
    """The reading of an instrument.

    Attributes:
      value: the estimate.
      standard_error: of the mean over the probes, rounding of the products included; infinity for
        a single probe.
      products: number of products with the operator.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> B = so.operators.Diagonal(jnp.array([1.0, 2.0, 4.0]))
      >>> reading = so.trace(B, jnp.zeros(3), jax.random.key(0))
      >>> reading.value.item()
      7.0
    """

    value: Any
    standard_error: Any
    products: jax.Array

    def __repr__(self) -> str:
        return brief(self)


def check_count(user: str, name: str, count: int, least: int = 1) -> None:
    """Raise an error for a number of probes, steps or pairs that is too small."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ValueError(f"{user} got {name}={count!r}; pass an integer of at least {least}.")


def over_probes(
    one: Callable[[jax.Array], tuple[Any, Any]], key: jax.Array, samples: int
) -> tuple[Any, Any]:
    """Mean and standard error over ``samples`` keys, one after the other.

    ``one(key)`` gives a value and its rounding error, whose mean is part of the standard error. By
    Welford's recurrence, since a difference of sums of squares would cancel. The loop carries the
    root of the sum of squares, which neither under- nor overflows.
    """

    def step(i, carry):
        mean, spread = carry
        off = jax.tree.map(jnp.subtract, one(jax.random.fold_in(key, i)), mean)
        new = jax.tree.map(lambda m, d: m + d / (i + 1), mean, off)
        weight = jnp.asarray((i / (i + 1)) ** 0.5)
        root = lambda s, d: jnp.hypot(s, weight.astype(s.dtype) * d)
        return new, jax.tree.map(root, spread, off[0])

    zeros = tree.zeros_like(jax.eval_shape(one, jax.random.key(0)))
    (mean, doubt), spread = jax.lax.fori_loop(0, samples, step, (zeros, zeros[0]))
    if samples == 1:
        return mean, jax.tree.map(lambda s: jnp.full_like(s, jnp.inf), spread)
    root = (samples * (samples - 1)) ** 0.5
    return mean, jax.tree.map(lambda s, d: jnp.hypot(s / root, d), spread, doubt)


def precision(like: Params) -> float:
    """The largest ε among the leaves: the rounding of an operator's products."""
    return max(float(jnp.finfo(tree.leaf_dtype(x)).eps) for x in jax.tree.leaves(like))


def trace(op: Operator, like: Params, key: jax.Array, *, samples: int = 32) -> Reading:
    """``tr B ≈ mean z·Bz`` over random signs ``z``.

    One probe has variance ``2 (‖B‖_F² − Σ Bᵢᵢ²)``: zero where B is diagonal.

    Args:
      op: B, of any sign.
      like: a tree shaped like the parameters.
      key: of the probes.
      samples: number of probes.

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
    tree.check_real(like, "like")

    def one(key):
        z = tree.random_signs(key, like)
        image = op.mv(z)
        return tree.vdot(z, image), 2 * precision(like) * tree.norm(image)

    return Reading(*over_probes(one, key, samples), jnp.asarray(samples, jnp.int32))


def diagonal(op: Operator, like: Params, key: jax.Array, *, samples: int = 32) -> Reading:
    """``diag B ≈ mean z ∘ Bz`` over random signs ``z``; a tree shaped like the parameters.

    Entry i of one probe has variance ``Σⱼ≠ᵢ Bᵢⱼ²``.

    Args:
      op: B, of any sign.
      like: a tree shaped like the parameters.
      key: of the probes.
      samples: number of probes.

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
    tree.check_real(like, "like")

    def one(key):
        z = tree.random_signs(key, like)
        image = jax.tree.map(jnp.multiply, z, op.mv(z))
        return image, jax.tree.map(lambda x: 2 * precision(like) * jnp.abs(x), image)

    return Reading(*over_probes(one, key, samples), jnp.asarray(samples, jnp.int32))
