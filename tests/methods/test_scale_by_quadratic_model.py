"""Any direction, at the length and with the momentum that the exact model gives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so
from tests import oracles

pytestmark = pytest.mark.usefixtures("x64")
X = np.random.default_rng(0).normal(size=(12, 3))
TARGETS = np.random.default_rng(1).normal(size=(12, 2))
F = so.compose(so.squared_error(TARGETS), lambda w: jnp.tanh(X @ w))
START = np.random.default_rng(2).normal(size=(3, 2))


def steps_of(tx, f, p, count):
    """The points before each step, the steps, and the state after all."""

    @jax.jit
    def update(p, state):
        value, grad = jax.value_and_grad(f)(p)
        return tx.update(grad, state, p, value=value, grad=grad, value_fn=f)

    p = jnp.asarray(p)
    state, found = tx.init(p), []
    for _ in range(count):
        updates, state = update(p, state)
        found.append((p, updates))
        p = optax.apply_updates(p, updates)
    return found, state


def test_the_step_is_the_minimum_over_adams_direction_and_the_last_step():
    damping = 0.05
    tx = so.scale_by_quadratic_model(optax.scale_by_adam(), trust=so.trust.fixed(damping))
    found, _ = steps_of(tx, F, START, 4)
    adam, last = optax.scale_by_adam(), None
    memory = adam.init(jnp.asarray(START))
    for p, step in found:
        grad = jax.grad(F)(p)
        proposed, memory = adam.update(grad, memory)
        basis = np.stack([np.ravel(d) for d in (proposed, last) if d is not None], axis=1)
        system = oracles.jacobian(F.model, p)
        curved = system.T @ system / 12 + damping * np.eye(6)
        weights = np.linalg.solve(basis.T @ curved @ basis, basis.T @ np.ravel(grad))
        np.testing.assert_allclose(np.ravel(step), -basis @ weights, rtol=1e-7)
        last = step


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "direction",
    [
        optax.adamw(1e3, weight_decay=1e-2),  # takes the parameters
        optax.contrib.muon(1.0),
        optax.scale(-1e-9),
        optax.scale(1e9),
    ],
    ids=["adamw", "muon", "tiny", "huge and uphill"],
)
def test_any_direction_and_any_length_of_it_descends(direction):
    found, state = steps_of(so.scale_by_quadratic_model(direction), F, START, 15)
    values = [float(F(p)) for p, _ in found]
    assert all(b <= a for a, b in zip(values, values[1:], strict=False))
    assert values[-1] < 0.8 * values[0]
    assert so.diagnostics(state)["rejections"] < 8


def test_the_unit_of_the_direction_does_not_matter():
    of = lambda scale: steps_of(so.scale_by_quadratic_model(optax.scale(scale)), F, START, 4)[0]
    for (_, a), (_, b) in zip(of(1.0), of(-1e-6), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7)
