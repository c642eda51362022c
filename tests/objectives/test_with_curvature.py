"""The gradient of one objective with the curvature of another, against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import assert_close

import secondorder as so
from secondorder import curvature, solvers, trust
from secondorder.operators._dense import ravel

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 2))
DAMPING = 10.0
W, V = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))


def start():
    return {"v": jnp.asarray(V), "w": jnp.asarray(W)}


def outputs(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def on(count, first=0):
    x, y = X[first : first + count], Y[first : first + count]
    return so.compose(so.squared_error(y), lambda p: outputs(p, x))


def in_chunks(count, size):
    of = lambda b: so.compose(so.squared_error(b["y"]), lambda p: outputs(p, b["x"]))
    return so.chunked(of, {"x": X[:count], "y": Y[:count]}, size)


PAIRS = {
    "whole": (on(12), on(5)),
    "a plain function": (lambda p: on(12)(p), on(5)),
    "gradient in chunks": (in_chunks(12, 3), on(5)),
    "both in chunks": (in_chunks(12, 3), in_chunks(6, 2)),
    "another batch": (on(7), on(5, first=7)),
}


def update(tx, f, p):
    def step(p):
        value, grad = jax.value_and_grad(f)(p)
        return tx.update(grad, tx.init(p), p, value=value, grad=grad, value_fn=f)

    return jax.jit(step)(p)


def damped(solver):
    return so.scale_by_curvature(so.exact(so.ggn), solver, trust.damping(DAMPING))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", PAIRS)
def test_the_step_solves_the_one_matrix_for_the_gradient_of_the_other(name):
    p, pair = start(), PAIRS[name]
    solver = solvers.sample_space() if name in ("whole", "both in chunks") else solvers.direct()
    direction, state = update(damped(solver), so.with_curvature(*pair), p)
    matrix = so.dense(so.ggn(pair[1], p), p)
    g = ravel(jax.grad(pair[0])(p))
    d = -np.linalg.solve(matrix + DAMPING * np.eye(g.size), g)
    np.testing.assert_allclose(ravel(direction), d, rtol=1e-8)
    told = so.diagnostics(state)
    predicted = g @ d + 0.5 * d @ matrix @ d
    change = pair[0](jax.tree.map(jnp.add, p, direction)) - pair[0](p)
    np.testing.assert_allclose(told["predicted"], predicted, rtol=1e-8)
    np.testing.assert_allclose(told["gain"], change / predicted, rtol=1e-6)


def test_hidden_parameters_are_hidden_from_both():
    p = start()
    given = {"v": p["v"], "w": optax.MaskedNode()}
    pair = on(12), on(5)
    f = so.restrict(so.with_curvature(*pair), p)
    direction, _ = update(damped(solvers.direct()), f, given)
    alone = update(damped(solvers.direct()), so.with_curvature(*PAIRS["whole"]), p)[0]
    matrix = so.dense(so.ggn(so.restrict(pair[1], p), given), given)
    g = ravel(jax.grad(pair[0])(p)["v"])
    d = -np.linalg.solve(matrix + DAMPING * np.eye(g.size), g)
    np.testing.assert_allclose(direction["v"].ravel(), d, rtol=1e-8)
    assert np.abs(direction["v"] - alone["v"]).max() > 1e-3


@pytest.mark.parametrize("source", [curvature.ggn_sample(), curvature.per_example()])
def test_samples_are_of_the_curvatures_batch(source):
    diagonal = so.running(source, curvature.diagonal(), decay=0.9)
    assert_memory_is_of_the_second(diagonal)


def test_layer_statistics_are_of_the_curvatures_batch():
    assert_memory_is_of_the_second(curvature.layerwise(on(5)))


def assert_memory_is_of_the_second(remembered):
    p, pair = start(), PAIRS["whole"]
    tx = so.scale_by_curvature(remembered, solvers.apply_inverse(), trust.fixed(DAMPING))
    _, state = update(tx, so.with_curvature(*pair), p)
    grad = jax.grad(pair[0])(p)
    memory = lambda p: remembered.at(grad, remembered.init(p), p, pair[1], DAMPING)[1]
    expected = jax.jit(memory)(p)
    found, expected = state.curvature.averages, expected.averages
    jax.tree.map(assert_close, found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", [so.hessian_free(trust=1e-2), so.levenberg_marquardt()])
def test_the_solution_is_the_one_of_the_value(method):
    """Of a consistent fit, so that a part of the curvature leads there, too; and of a box."""
    rate = np.array([1.3, 0.4])
    x = np.linspace(0, 2, 9)
    curve = lambda p, x: p[0] * jnp.exp(-p[1] * x)
    of = lambda x: so.sum_of_squares(lambda p: curve(p, x) - curve(rate, x))
    f = so.with_curvature(of(x), of(x[::2]))
    found = so.minimize(f, jnp.array([1.0, 0.7]), method, max_steps=500)
    assert found.success
    np.testing.assert_allclose(found.params, rate, rtol=1e-6)
    bounded = so.minimize(f, jnp.array([1.0, 0.7]), method, max_steps=500, bounds=(0.5, 2.0))
    whole = so.minimize(of(x), jnp.array([1.0, 0.7]), so.newton_cg(), bounds=(0.5, 2.0))
    assert bounded.success
    np.testing.assert_allclose(bounded.params, whole.params, rtol=1e-5)


def test_angles_to_the_curvatures_residuals_claim_nothing():
    """The curvature's own residuals vanish at the start, where the gradient does not."""
    f = so.with_curvature(
        so.sum_of_squares(lambda p: p - jnp.array([1.0, 2.0])), so.sum_of_squares(lambda p: 2 * p)
    )
    found = so.minimize(f, jnp.zeros(2), so.levenberg_marquardt())
    assert found.success
    np.testing.assert_allclose(found.params, [1.0, 2.0], rtol=1e-6)


def test_the_derivative_of_a_solution_is_that_of_the_values_minimum():
    def solved(target):
        value = so.sum_of_squares(lambda p: p**3 - target)
        bend = so.sum_of_squares(lambda p: p**3)
        return so.minimize(so.with_curvature(value, bend), jnp.array(1.5), so.hessian_free()).params

    np.testing.assert_allclose(jax.grad(solved)(8.0), 8 ** (-2 / 3) / 3, rtol=1e-5)


def test_what_is_no_pair_of_objectives_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="with_curvature needs curvature_fn to be a function"):
        so.with_curvature(on(3), 3.0)
    with pytest.raises(TypeError, match="a curvature of another objective already"):
        so.with_curvature(on(3), so.with_curvature(on(3), on(2)))
    with pytest.raises(TypeError, match="cannot tell which of the two is meant"):
        so.ggn(so.with_curvature(on(3), on(2)), start())
