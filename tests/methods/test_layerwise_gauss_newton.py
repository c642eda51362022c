"""Layerwise Gauss-Newton: downhill by exact lengths, its momentum, and what its layers are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import secondorder as so

X = np.linspace(-1.0, 1.0, 20, dtype="float32")[:, None]
TARGET = np.sin(3 * X)


def start():
    keys = jax.random.split(jax.random.key(0), 3)
    draw = lambda key, *shape: 0.7 * jax.random.normal(key, shape)
    return [
        {"b": jnp.linspace(-1, 1, 6), "w": draw(keys[0], 1, 6)},
        {"b": jnp.zeros(6), "w": draw(keys[1], 6, 6)},
        {"b": jnp.zeros(1), "w": draw(keys[2], 6, 1)},
    ]


def network(p):
    x = X
    for layer in p[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ p[-1]["w"] + p[-1]["b"]


SQUARES = so.compose(so.squared_error(TARGET), network)
CLASSES = so.compose(so.sigmoid_cross_entropy((TARGET > 0).astype("float32")), network)


def run(tx, count, f=SQUARES):
    @jax.jit
    def step(p, state):
        value, grad = jax.value_and_grad(f)(p)
        updates, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=f)
        return jax.tree.map(jnp.add, p, updates), state, value, updates

    p, state, values = start(), tx.init(start()), []
    for _ in range(count):
        p, state, value, updates = step(p, state)
        values.append(float(value))
    return values, state, updates


SOLVERS = {
    "cg": None,
    "samples": so.solvers.sample_space(),
    "Cholesky": so.solvers.direct(),
    "prox-linear": so.solvers.prox_linear(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_it_descends_to_a_fit_that_gradient_descent_does_not_find(name):
    values, _, _ = run(so.layerwise_gauss_newton(trust=1e-2, solver=SOLVERS[name]), 40)
    slow, _, _ = run(so.gradient_descent(), 40)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.1 * slow[-1]


@pytest.mark.slow
def test_the_loss_as_it_is_leads_to_a_separating_network():
    proximal = so.solvers.prox_linear()
    values, state, _ = run(so.layerwise_gauss_newton(trust=1e-2, solver=proximal), 30, CLASSES)
    assert values[-1] < 1e-2 < values[0]
    assert so.diagnostics(state)["iterations"] > 0


def test_the_momentum_is_of_the_step_that_was_taken():
    _, state, updates = run(so.layerwise_gauss_newton(trust=1e-6), 4)
    kept, _ = state.solver
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), kept, updates)


@pytest.mark.slow
def test_the_layers_of_a_flat_tree_are_one_unless_told_apart(x64):
    """One layer is the whole: then the step is Gauss-Newton's."""
    p = jax.tree.map(lambda x: x.astype("float64"), start())
    flat = {f"{key}{i}": layer[key] for i, layer in enumerate(p) for key in layer}
    build = lambda q: [{key: q[f"{key}{i}"] for key in "bw"} for i in range(3)]
    f = so.compose(SQUARES.loss, lambda q: network(build(q)))
    solver = so.solvers.direct()
    grad = jax.grad(f)(flat)

    def update(tx):
        return jax.jit(lambda: tx.update(grad, tx.init(flat), flat, value_fn=f)[0])()

    one = update(so.layerwise_gauss_newton(trust=1.0, solver=solver))
    whole = update(so.scale_by_curvature(so.exact(so.ggn), solver, so.trust.damping(1.0)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7), one, whole)
    leaves = update(
        so.layerwise_gauss_newton(trust=1.0, solver=solver, layer_of=so.operators.by_leaf)
    )
    assert max(np.max(np.abs(leaves[k] - whole[k])) for k in flat) > 1e-3


@pytest.mark.slow
def test_a_batch_of_nan_leaves_everything_as_it_was():
    tx = so.layerwise_gauss_newton()
    broken = so.compose(so.squared_error(TARGET * np.nan), network)
    _, before, _ = run(tx, 2)
    p = start()
    grad = jax.grad(broken)(p)
    updates, after = jax.jit(lambda s: tx.update(grad, s, p, value_fn=broken))(before)
    assert all(np.all(x == 0) for x in jax.tree.leaves(updates))
    jax.tree.map(np.testing.assert_array_equal, after.solver, before.solver)
    # No rise of the damping either: such a batch has no information about it.
    assert after.trust.scale == before.trust.scale and not after.trust.accepted
