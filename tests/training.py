"""What the tests of methods share: a small net, its numbers, and loops along steps."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import secondorder as so


def net(p, x):
    """A hidden layer of six, dead where its bias is far below zero, and a leaf out of use."""
    hidden = jax.nn.relu(x @ p["in"] + p["dead"])
    return hidden @ p["out"] + p["bias"]


def start(dtype="float32", dead=0.0):
    key = jax.random.key(2)
    return {
        "in": (0.5 * jax.random.normal(key, (4, 6))).astype(dtype),
        "dead": jnp.full(6, dead, dtype),
        "out": (0.5 * jax.random.normal(key, (6, 3))).astype(dtype),
        "bias": jnp.zeros(3, dtype),
        "unused": jnp.ones((2, 3), dtype),
    }


def numbers(tree):
    """The floating-point leaves."""
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


def memory(state):
    """All a method remembers (its report of the last step may hold infinity for an unknown)."""
    (ours,) = so.state.find_states(state)
    return ours.curvature, ours.solver


def assert_no_nan(params, state):
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in numbers(params))
    assert all(np.isfinite(x).all() for x in numbers(memory(state)))


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


def points_of(tx: Any, f: Callable, p: jax.Array, count: int) -> np.ndarray:
    """The points that ``count`` updates lead to, the start first."""

    @jax.jit
    def step(p, state):
        value, grad = jax.value_and_grad(f)(p)
        updates, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=f)
        return p + updates, state

    state, points = tx.init(p), [p]
    for _ in range(count):
        p, state = step(p, state)
        points.append(p)
    return np.stack(points)
