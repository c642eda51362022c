"""Explicitly sharded parameters and batches go through every matrix-free product."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import problems
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import secondorder as so

LOSSES = {
    "squared_error": lambda y: so.squared_error(y),
    "softmax": lambda y: so.softmax_cross_entropy(jnp.argmax(y, -1)),
    "huber": lambda y: so.huber(0.5),
}


def model(p, x, out):
    hidden = jnp.tanh(x @ p["w"])
    return jnp.einsum("...h,hc->...c", hidden, p["v"], out_sharding=out)


@pytest.fixture
def mesh():
    if jax.device_count() < 8:
        pytest.skip("needs the eight CPU devices of conftest.py")
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        yield mesh


def place(mesh):
    """Parameters, data and targets, first on one device, then spread over the mesh."""
    alone = (
        {"w": 0.5 * problems.draw(0, 4, 6), "v": 0.5 * problems.draw(1, 6, 4)},
        problems.draw(2, 8, 4),
        problems.draw(3, 8, 4),
    )
    specs = {"w": P(None, "model"), "v": P("model", None)}, P("data", None), P("data", None)
    spread = jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), alone, specs)
    return alone, spread


def products(objective, params):
    """Every matrix-free product there is."""
    v = jax.tree.map(jnp.cos, params)
    found = {
        "value": objective(params),
        "gradient": jax.grad(objective)(params),
        "model": so.Quadratic(v, so.operators.Diagonal(params))(v),
        "sum": (2 * so.ggn(objective, params) + so.hessian(objective, params)).damped(0.5).mv(v),
        "empirical": so.empirical_fisher(objective, params).mv(v),
    }
    loss = getattr(objective, "loss", None)  # chunks draw by keys of their own
    if isinstance(loss, (so.losses.SquaredError, so.losses.SoftmaxCrossEntropy)):
        found["drawn"] = so.fisher(objective, params, jax.random.key(0), samples=2).mv(v)
    return found


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", LOSSES)
def test_products_with_sharded_parameters_are_those_of_one_device(mesh, name):
    alone, spread = place(mesh)

    def run(parts, spec):
        params, x, y = parts
        objective = so.compose(LOSSES[name](y), lambda p: model(p, x, spec))
        return products(objective, params)

    one = jax.jit(lambda parts: run(parts, None))(alone)
    many = jax.jit(lambda parts: run(parts, P("data", None)))(spread)
    for key in one:
        error = oracles.relative_error(oracles.flat(many[key]), oracles.flat(one[key]))
        assert error < 1e-5, key
    for key in ("gradient", "empirical", "sum"):
        for leaf, like in zip(jax.tree.leaves(many[key]), jax.tree.leaves(spread[0]), strict=True):
            assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim), key


def test_a_per_example_objective_takes_a_sharded_batch(mesh):
    alone, spread = place(mesh)

    def run(parts):
        params, x, y = parts
        loss = so.squared_error(y)
        return products(so.per_example(loss, lambda p, x: model(p, x, P(None)), x), params)

    one, many = jax.jit(run)(alone), jax.jit(run)(spread)
    for key in one:
        error = oracles.relative_error(oracles.flat(many[key]), oracles.flat(one[key]))
        assert error < 1e-5, key


def test_every_chunk_has_its_share_of_every_device(mesh):
    alone, spread = place(mesh)

    def run(parts, spec, size):
        params, x, y = parts
        of = lambda b: so.compose(so.squared_error(b["y"]), lambda p: model(p, b["x"], spec))
        batch = {"x": x, "y": y}
        return products(so.chunked(of, batch, size) if size else of(batch), params)

    one = jax.jit(lambda parts: run(parts, None, None))(alone)
    many = jax.jit(lambda parts: run(parts, P("data", None), 4))(spread)
    for key in many:
        error = oracles.relative_error(oracles.flat(many[key]), oracles.flat(one[key]))
        assert error < 1e-5, key


def test_logits_may_be_sharded_over_the_classes(mesh):
    alone = problems.draw(4, 8, 4), jnp.array([0, 3, 1, 2, 2, 0, 1, 3])
    specs = P("data", "model"), P("data")
    spread = jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), alone, specs)

    @jax.jit
    def parts(z, labels):
        loss = so.softmax_cross_entropy(labels)
        return jax.value_and_grad(loss)(z), loss.curvature(z, z), loss.root(z, loss.residual(z))

    for found, expected in zip(*map(jax.tree.leaves, (parts(*spread), parts(*alone))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_vector_space_needs_no_gathering(mesh):
    _, (params, _, _) = place(mesh)
    local = jax.tree.map(lambda x: np.asarray(x), params)
    flat = oracles.flat(local).astype(np.float64)
    np.testing.assert_allclose(so.tree.vdot(params, params), flat @ flat, rtol=1e-6)
    np.testing.assert_allclose(so.tree.norm(params), np.linalg.norm(flat), rtol=1e-6)
    np.testing.assert_allclose(so.tree.max_abs(params), np.abs(flat).max())
    assert bool(so.tree.all_finite(params))
    for moved in (
        so.tree.axpy(2.0, params, params),
        so.tree.scale(3.0, params),
        so.tree.where(jnp.array(True), params, so.tree.zeros_like(params)),
        so.tree.negative(params),
    ):
        for leaf, like in zip(jax.tree.leaves(moved), jax.tree.leaves(params), strict=True):
            assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
