"""The matrix sign against the singular vectors; Muon and Newton-Muon as compositions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import assert_close, condition_of
from training import fixed_gradients, steps_along

import secondorder as so
from secondorder.solvers import apply_inverse, grafted, matrix_sign, momentum

SHAPES = {"tall": (6, 3), "wide": (2, 5), "kernel": (2, 2, 3), "vector": (4,), "scalar": ()}


def sign(x):
    matrix = np.reshape(x, (-1, x.shape[-1] if x.ndim > 1 else 1))
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    rank = np.sum(s > 1e-10 * s[0])
    return (u[:, :rank] @ vt[:rank]).reshape(x.shape)


def step_of(g, **settings):
    solver = matrix_sign(apply_inverse(), **settings)
    tx = so.scale_by_curvature(so.curvature.identity(), solver, so.trust.fixed())
    f = lambda p: sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (p, g)), strict=True))
    params = jax.tree.map(jnp.zeros_like, g)
    return jax.jit(lambda g: tx.update(g, tx.init(params), params, value_fn=f)[0])(g)


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_it_is_the_product_of_the_singular_vectors(unit):
    gradient = jax.tree.map(lambda x: jnp.asarray(unit * x), fixed_gradients(SHAPES, 1)[1][0])
    step = step_of(gradient, steps=6, polish=4)
    for name in SHAPES:
        assert_close(step[name], -sign(np.asarray(gradient[name]) / unit), 100)


def test_a_leaf_of_zeros_or_of_low_rank_has_no_noise():
    rng = np.random.default_rng(0)
    low = np.outer(rng.normal(size=5), rng.normal(size=4))
    gradient = {"zero": jnp.zeros((3, 2)), "low": jnp.asarray(low), "none": jnp.zeros((0, 2))}
    step = step_of(gradient, polish=3)
    np.testing.assert_array_equal(step["zero"], 0)
    np.testing.assert_allclose(step["low"], -sign(low), atol=1e-2)


@pytest.mark.usefixtures("x64")
def test_with_momentum_it_is_muon_of_optax():
    params, grads = fixed_gradients({"tall": (6, 3), "wide": (2, 5)}, 5)
    solver = matrix_sign(momentum(apply_inverse(), 0.9))
    ours = optax.chain(
        so.scale_by_curvature(so.curvature.identity(), solver, so.trust.fixed()), optax.scale(0.1)
    )
    axes = dict.fromkeys(params, optax.contrib.MuonDimensionNumbers(0, 1))
    muon = optax.contrib.scale_by_muon(beta=0.9, nesterov=False, weight_dimension_numbers=axes)
    theirs = optax.chain(muon, optax.scale(-0.1))
    value_fn = lambda t: lambda p: jnp.sum(p["tall"])
    for a, b in zip(
        steps_along(ours, params, grads, value_fn), steps_along(theirs, params, grads), strict=True
    ):
        for name in a:  # Optax adds 1e-8 to the norm
            np.testing.assert_allclose(a[name], b[name], atol=1e-6)


X = np.random.default_rng(1).normal(size=(12, 3)) @ np.diag([1.0, 5.0, 0.2])
START = {
    "a": np.random.default_rng(2).normal(size=(3, 5)),
    "b": np.random.default_rng(3).normal(size=(5, 2)),
}
F = so.compose(so.squared_error(np.ones((12, 2))), lambda p: jnp.tanh(X @ p["a"]) @ p["b"])


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("f", [1, 2])
def test_newton_muon_takes_the_published_steps(f):
    # Du and Su (2026): K averages the inputs' Gram, with a ridge; m averages G K⁻¹; W −= η msgn(m).
    inputs = so.curvature.layerwise(F, decay=0.9, refresh_every=f, inputs_only=True)
    solver = matrix_sign(grafted(apply_inverse(), None, 0.8), steps=6, polish=4)
    tx = optax.chain(so.scale_by_curvature(inputs, solver, so.trust.fixed(0.2)), optax.scale(0.05))
    assert [x.factors[1] for x in inputs.init(START).averages] == [None, None]

    @jax.jit
    def update(p, state):
        grads = jax.grad(F)(p)
        updates, state = tx.update(grads, state, p, value_fn=F)
        return optax.apply_updates(p, updates), state, grads

    p, state = jax.tree.map(jnp.asarray, START), tx.init(START)
    w = dict(START)
    gram, mean, inverse = dict.fromkeys(w, 0.0), dict.fromkeys(w, 0.0), {}
    for t in range(5):
        p, state, grads = update(p, state)
        rate = (1 - 0.9) / (1 - 0.9 ** (t + 1))
        for name, z in (("a", X), ("b", np.tanh(X @ w["a"]))):
            gram[name] = (1 - rate) * gram[name] + rate * z.T @ z / len(z)
        for name, k in gram.items():
            if t % f == 0:
                ridge = 0.2 * np.trace(k) / len(k) * np.eye(len(k))
                inverse[name] = np.linalg.inv(k + ridge)
            g = inverse[name] @ np.asarray(grads[name])
            mean[name] = 0.8 * mean[name] + 0.2 * g
            w[name] = w[name] - 0.05 * sign(mean[name])
        for name in w:
            assert_close(p[name], w[name], 1e3 * condition_of(mean[name]))


def test_a_leaf_outside_the_layers_has_no_factor_and_eigenbases_need_both():
    f = so.sum_of_squares(lambda p: jnp.exp(p["w"]) + X @ p["a"])
    layers = so.curvature.layerwise(f, inputs_only=True)
    params = {"a": jnp.ones((3, 2)), "w": jnp.ones((12, 2))}
    tx = so.scale_by_curvature(layers, apply_inverse(), so.trust.fixed(0.1))
    grads = jax.grad(f)(params)
    updates, _ = jax.jit(functools.partial(tx.update, value_fn=f))(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -grads["w"], rtol=1e-5)
    with pytest.raises(ValueError, match="both eigen=True and inputs_only=True"):
        so.curvature.layerwise(f, eigen=True, inputs_only=True)
