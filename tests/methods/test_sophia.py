"""Sophia: the published steps, from fixed gradients and fixed samples of the curvature."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import assert_close
from training import fixed_gradients, steps_along

import secondorder as so
from secondorder.curvature import Estimator, Sample, fisher_sample


def fixed_samples(samples) -> Estimator:
    """An estimate whose draw at update t is the t-th sample; the key says nothing."""

    def draw(grads, params, value_fn, key):
        left, right = map(jnp.asarray, samples)
        at = value_fn.count
        return Sample({"w": left[at]}, {"w": right[at]})

    return Estimator(draw)


class Counting:
    """A stand-in for an objective, which tells a fixed sampler which step this is."""

    def __init__(self, count):
        self.count = count

    def __call__(self, params):
        return jnp.zeros(())


def reference(params, grads, estimates, *, lr, b1, b2, gamma, eps, sample_every, weight_decay):
    """Liu et al. (2023), algorithm 3, in NumPy."""
    theta, m, h = params.copy(), np.zeros_like(params), np.zeros_like(params)
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        if t % sample_every == 1 % sample_every:
            h = b2 * h + (1 - b2) * estimates[t - 1]
        shrunk = theta - lr * weight_decay * theta
        theta = shrunk - lr * np.clip(m / np.maximum(gamma * h, eps), -1, 1)
        yield theta


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("sample_every", "weight_decay"), [(1, 0.0), (3, 0.1)])
def test_it_takes_the_steps_of_the_published_algorithm(sample_every, weight_decay):
    rng = np.random.default_rng(0)
    params, grads = fixed_gradients({"w": (4, 3)}, 8)
    left, right = rng.normal(size=(2, 8, 4, 3))  # their product has negative entries, as a Hessian
    settings = {"b1": 0.9, "b2": 0.8, "gamma": 0.3, "eps": 1e-12, "sample_every": sample_every}
    tx = so.sophia(
        0.1, **settings, weight_decay=weight_decay, estimator=fixed_samples((left, right))
    )
    found = steps_along(tx, params, grads, lambda t: Counting(t))
    expected = reference(
        params["w"],
        [g["w"] for g in grads],
        left * right,
        lr=0.1,
        weight_decay=weight_decay,
        **settings,
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours["w"], theirs)


@pytest.mark.slow
def test_the_sample_of_the_fisher_is_the_gauss_newton_bartlett_estimate():
    x = jax.random.normal(jax.random.key(0), (6, 3))
    model = lambda w: x @ w
    w = jax.random.normal(jax.random.key(1), (3, 4))
    f = so.compose(so.softmax_cross_entropy(jnp.zeros(6, int)), model)
    key = jax.random.key(2)
    v = fisher_sample().draw(None, w, f, key).left

    labels = jax.random.categorical(key, model(w))  # drawn as the loss draws them
    g = jax.grad(lambda w: so.softmax_cross_entropy(labels)(model(w)))(w)
    np.testing.assert_allclose(v**2, 6 * g * g, rtol=1e-4, atol=1e-6)


def test_between_samples_the_diagonal_stays_and_no_sample_is_paid_for():
    calls = []

    def draw(grads, params, value_fn, key):
        jax.debug.callback(lambda: calls.append(0))
        return Sample(grads, grads)

    tx = so.sophia(0.1, sample_every=4, estimator=Estimator(draw, needs_value_fn=False))
    params = {"w": jnp.ones(3)}
    step = jax.jit(lambda g, s, p: tx.update(g, s, p))
    state, diagonals = tx.init(params), []
    for t in range(9):
        _, state = step({"w": jnp.full(3, 1.0 + t)}, state, params)
        diagonals.append(float(state[0].curvature.averages["w"][0]))
    jax.effects_barrier()
    assert len(calls) == 3
    assert len(set(diagonals)) == 3
    assert diagonals[0] == diagonals[3] != diagonals[4] == diagonals[7] != diagonals[8]


@pytest.mark.slow
def test_a_schedule_and_an_injected_gamma_change_the_next_step():
    f = so.compose(so.squared_error(jnp.array([1.0, 2.0])), lambda p: p * jnp.array([1.0, 0.1]))
    tx = optax.inject_hyperparams(so.sophia)(learning_rate=optax.linear_schedule(1.0, 0.5, 1))
    params = jnp.array([0.9, 1.9])
    state = tx.init(params)
    updates = []
    for gamma in (1.0, 100.0):
        state.hyperparams["gamma"] = jnp.asarray(gamma)
        u, state = tx.update(jax.grad(f)(params), state, params, value_fn=f)
        updates.append(u)
    assert float(state.hyperparams["learning_rate"]) == 0.5
    assert np.all(np.abs(updates[1]) < np.abs(updates[0]))
