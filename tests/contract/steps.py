"""A method's training step, compiled once for all tests that can share it; and comparisons."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from contract.problems import logistic, valley
from contract.table import METHODS

import secondorder as so


class Outcome(NamedTuple):
    params: Any
    state: Any
    updates: Any
    grads: Any
    value: jax.Array


def training_step(tx, objective: Callable = logistic) -> Callable:
    """``(params, state, data) -> Outcome``, as a user writes it.

    A further argument, a tree of one number per leaf, multiplies the gradients that are handed over
    as updates, as a transformation before this one would.
    """

    def step(params, state, data, factors=None):
        value_fn = objective(data)
        value, grads = jax.value_and_grad(value_fn)(params)
        handed = grads
        if factors is not None:
            handed = jax.tree.map(lambda c, g: (c * g).astype(g.dtype), factors, grads)
        updates, state = tx.update(
            handed, state, params, value=value, grad=grads, value_fn=value_fn
        )
        return Outcome(optax.apply_updates(params, updates), state, updates, grads, value)

    return step


class Trainer:
    """A method with its compiled training step, which donates parameters and state."""

    def __init__(self, name: str, objective: Callable):
        shown = "example" in METHODS[name].options and objective is valley
        self.tx = METHODS[name].make(**{"example": lambda p: valley((1.2, 0.0))} if shown else {})
        self.opening, self.traces = METHODS[name].opening, 0
        step = training_step(self.tx, objective)

        def counted(params, state, data, factors):
            self.traces += 1
            return step(params, state, data, factors)

        self.donating = jax.jit(counted, donate_argnums=(0, 1))

    def __call__(self, params, state, data, factors=None) -> Outcome:
        return self.donate(*jax.tree.map(jnp.copy, (params, state)), data, factors)

    def donate(self, params, state, data, factors=None) -> Outcome:
        """A step that deletes the parameters and the state it is given."""
        if factors is None:
            factors = jax.tree.map(lambda leaf: np.float32(1), params)
        return self.donating(params, state, data, factors)

    def begin(self, params, data):
        """The state before the first step."""
        state = self.tx.init(params)
        for _ in range(self.opening):
            state = self(params, state, data).state
        return state

    def run(self, params, data, steps: int, state=None) -> Outcome:
        state = self.tx.init(params) if state is None else state
        outcome = self(params, state, data)
        for _ in range(steps - 1):
            outcome = self.donate(outcome.params, outcome.state, data)
        return outcome


def trainer(name: str, objective: Callable = logistic) -> Trainer:
    return _trainer(name, objective)


# The row at hand: programs that are kept fill up the memory. With a default of its own, a call that
# leaves the objective out and one that names it would be two entries, and compile twice.
@functools.lru_cache(maxsize=2)
def _trainer(name: str, objective: Callable) -> Trainer:
    return Trainer(name, objective)


def vdot(a, b) -> float:
    products = jax.tree.map(lambda x, y: np.vdot(np.float64(x), np.float64(y)), a, b)
    return sum(jax.tree.leaves(products))


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_close(a, b, rtol=1e-4, atol=1e-5):
    chex.assert_trees_all_close(a, b, rtol=rtol, atol=atol)


def memory(state) -> list:
    """What a rejected step must leave alone: everything but the counts and the trust."""
    kept = []

    def look(node):
        if isinstance(node, so.CurvatureState):
            kept.append((node.curvature, node.solver))
            return True
        if hasattr(node, "learning_rate"):
            kept.append(node)
            return True
        return False

    jax.tree.leaves(state, is_leaf=look)
    return kept


def signature(tree):
    """Structure, shapes, dtypes and weak types."""
    return jax.tree.structure(tree), [
        (x.shape, x.dtype, getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)
    ]


def diagnostics(state) -> dict[str, Any]:
    return {key: value.item() for key, value in so.diagnostics(state).items()}
