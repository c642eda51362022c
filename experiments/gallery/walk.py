"""The points that an optimizer passes on a function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def walk(optimizer: Any, value_fn: Callable, start: Any, steps: int) -> np.ndarray:
    """Where so many steps of an Optax optimizer lead, the start first: `(steps + 1, n)`."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, _):
        p, state = carry
        value, grad = jax.value_and_grad(value_fn)(p)
        given = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, state = optimizer.update(grad, state, p, **given)
        p = optax.apply_updates(p, updates)
        return (p, state), p

    @jax.jit
    def run(p):
        return jax.lax.scan(step, (p, optimizer.init(p)), length=steps)[1]

    start = jnp.asarray(start, float)
    return np.concatenate([start[None], run(start)])


def until(path: np.ndarray, value_fn: Callable, value: float) -> int:
    """The first step of a path at which the function is at most `value`; its end if none is."""
    below = np.flatnonzero(np.asarray(jax.vmap(value_fn)(jnp.asarray(path))) <= value)
    return int(below[0]) if below.size else len(path) - 1


def fitted_power(x: Any, y: Any) -> float:
    """The p of `y ≈ c xᵖ`: the slope of a straight line through the logarithms."""
    return float(np.polyfit(np.log(np.asarray(x)), np.log(np.asarray(y)), 1)[0])
