"""AdaHessian: the published steps, from fixed gradients and known Hessian products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close
from training import fixed_gradients, steps_along

import secondorder as so
from secondorder.curvature._samples import hutchinson


def curved(weights) -> so.Objective:
    """``½ Σ w θ² + (Σ θ)²/4``: a Hessian with a diagonal and something beside it."""
    weights = jax.tree.map(jnp.asarray, weights)

    def f(params):
        own = sum(jax.tree.leaves(jax.tree.map(lambda w, p: jnp.sum(w * p**2), weights, params)))
        return 0.5 * own + 0.25 * sum(jnp.sum(p) for p in jax.tree.leaves(params)) ** 2

    return f


def reference(theta, grads, products, *, lr, b1, b2, eps, k, weight_decay):
    """Yao et al. (2021), algorithm 1, in NumPy, for one kernel ``(h, w, in, out)``."""
    theta, m, v = theta.copy(), np.zeros_like(theta), np.zeros_like(theta)
    for t, (g, d) in enumerate(zip(grads, products, strict=True), start=1):
        if theta.ndim == 4:  # equation 10: the blocks are the windows
            d = np.ones_like(d) * d.mean(axis=(0, 1), keepdims=True)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d * d
        step = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) ** k + eps)
        theta = theta - lr * (step + weight_decay * theta)
        yield theta


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("k", "weight_decay"), [(1.0, 0.0), (0.5, 0.1)])
def test_it_takes_the_steps_of_the_published_algorithm(k, weight_decay):
    shapes = {"kernel": (3, 2, 2, 4), "matrix": (3, 4), "scalar": ()}
    params, grads = fixed_gradients(shapes, 6)
    weights, _ = fixed_gradients(shapes, 0, seed=1)
    f = curved(weights)
    tx = so.adahessian(0.1, b1=0.8, b2=0.9, eps=1e-3, hessian_power=k, weight_decay=weight_decay)
    key = tx.init(params)[0].curvature.key
    products = []
    for t in range(len(grads)):  # the Hessian is constant, so the products are known beforehand
        z, hz = hutchinson().draw(None, params, f, jax.random.fold_in(key, t))
        assert all(np.all(np.abs(x) == 1) for x in jax.tree.leaves(z))
        products.append(jax.tree.map(lambda a, b: np.asarray(a * b), z, hz))
    found = list(steps_along(tx, params, grads, lambda t: f))
    for name in shapes:
        expected = reference(
            np.asarray(params[name]),
            [g[name] for g in grads],
            [p[name] for p in products],
            lr=0.1, b1=0.8, b2=0.9, eps=1e-3, k=k, weight_decay=weight_decay,
        )  # fmt: skip
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours[name], theirs, 1e3)  # squares are divided by above ε = 1e-3


@pytest.mark.slow
def test_the_average_is_over_the_window_that_the_caller_says():
    outer_first = lambda d: jnp.broadcast_to(d.mean((-2, -1), keepdims=True), d.shape)
    tx = so.adahessian(average=outer_first)
    params = {"kernel": jnp.ones((4, 2, 3, 3))}
    f = curved({"kernel": jax.random.normal(jax.random.key(0), (4, 2, 3, 3))})
    _, state = tx.update(jax.grad(f)(params), tx.init(params), params, value_fn=f)
    mean = state[0].curvature.averages["kernel"]
    np.testing.assert_allclose(mean, mean[..., :1, :1] * jnp.ones((3, 3)), rtol=1e-6)
    assert np.ptp(mean[..., 0, 0]) > 0
