"""What the tests of the sampled methods share: fixed gradients, and a plain loop along them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def fixed_gradients(shapes: dict[str, tuple[int, ...]], count: int, seed: int = 0):
    """Parameters and ``count`` gradients of the given shapes, in float64, drawn once."""
    rng = np.random.default_rng(seed)
    draw = lambda: {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return draw(), [draw() for _ in range(count)]


def steps_along(
    tx: Any, params: Any, grads: list, value_fn: Callable | None = None
) -> Iterator[Any]:
    """The parameters after each update, in one compiled step, whatever the objective."""

    @jax.jit
    def step(params, state, grad, t):
        extra = {} if value_fn is None else {"value_fn": value_fn(t)}
        updates, state = tx.update(grad, state, params, **extra)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for t, grad in enumerate(grads):
        params, state = step(params, state, grad, t)
        yield params
    assert step._cache_size() == 1, "the step was traced again"
