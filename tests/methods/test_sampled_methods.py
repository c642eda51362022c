"""Sampled methods where things go wrong, on low precision and many devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from training import assert_no_nan, memory, net, numbers, start

import secondorder as so

X = jax.random.normal(jax.random.key(0), (16, 4))
Y = jax.random.randint(jax.random.key(1), (16,), 0, 3)

METHODS = {
    "sophia": functools.partial(so.sophia, sample_every=2),
    "sophia_h": functools.partial(so.sophia, sample_every=2, estimator=so.curvature.hutchinson()),
    "adahessian": so.adahessian,
    "soap": functools.partial(so.soap, refresh_every=2),
    "soap_current": functools.partial(
        so.soap, refresh_every=1, current_gradient=True, block_size=3
    ),
    "soap_drift": functools.partial(so.soap, refresh_every=so.curvature.drift(0.1)),
    "kl_soap": functools.partial(so.kl_soap, refresh_every=2),
    "kl_shampoo_blocks": functools.partial(so.kl_shampoo, refresh_every=2, block_size=3),
    "shampoo": functools.partial(so.shampoo, refresh_every=2),
    "shampoo_blocks": functools.partial(so.shampoo, refresh_every=2, block_size=3),
    "shampoo_eigen": functools.partial(so.shampoo, refresh_every=2, eigen=True),
    "shampoo_drift": functools.partial(
        so.shampoo, refresh_every=so.curvature.drift(0.1, measure_every=2), block_size=3
    ),
}
RATES = {name: 0.2 for name in METHODS if name.startswith("shampoo")}
every_method = pytest.mark.parametrize("name", METHODS)
# What these take programs of their own for: one of each kind, since the contract has the rest.
each_kind = pytest.mark.parametrize(
    "name", ["sophia", "adahessian", "soap_drift", "shampoo_blocks", "kl_shampoo_blocks"]
)
of_matrices = pytest.mark.parametrize(
    "name", ["soap_drift", "shampoo_blocks", "shampoo_eigen", "kl_shampoo_blocks"]
)
of_drift = pytest.mark.parametrize("name", ["soap_drift", "shampoo_drift"])


@functools.cache
def trainer(name, **settings):
    """``(params, state, x, y, rate) -> (params, state, value, updates)``, compiled once a shape."""
    traces = []

    @jax.jit
    def step(params, state, x, y, rate):
        traces.append(0)
        tx = METHODS[name](learning_rate=rate, **settings)
        f = so.compose(so.softmax_cross_entropy(y), lambda p: net(p, x.astype(p["in"].dtype)))
        value, grads = jax.value_and_grad(f)(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=f)
        return optax.apply_updates(params, updates), state, value, updates

    return METHODS[name](**settings).init, step, traces


def train(name, params, x=X, y=Y, steps=6, state=None, rate=None, **settings):
    """The parameters, the state and the values along the way."""
    init, step, traces = trainer(name, **settings)
    state, values, before = init(params) if state is None else state, [], len(traces)
    rate = RATES.get(name, 0.05) if rate is None else rate
    for _ in range(steps):
        params, state, value, _ = step(params, state, x, y, jnp.float32(rate))
        values.append(float(value))
    assert len(traces) <= before + 1
    return params, state, values


@pytest.mark.quick(1)
@every_method
def test_it_learns(name):
    _, state, values = train(name, start(), steps=40)
    assert values[-1] < 0.75 * values[0]
    assert so.diagnostics(state)["rejections"] == 0


@pytest.mark.quick(1)
@every_method
def test_a_dead_layer_and_a_leaf_without_gradient_stay_as_they_are(name):
    params, state, _ = train(name, start(dead=-100.0))  # no unit ever fires
    assert_no_nan(params, state)
    for leaf in ("in", "out", "unused"):
        np.testing.assert_array_equal(params[leaf], start()[leaf])
    assert np.any(params["bias"] != 0)


@pytest.mark.quick(3)
@every_method
def test_a_layer_that_dies_on_the_way_leaves_no_nan(name):
    alive, state, _ = train(name, start(), steps=3)
    dead = alive | {"dead": jnp.full(6, -100.0, jnp.float32)}
    assert_no_nan(*train(name, dead, steps=3, state=state)[:2])


@pytest.mark.quick(1)
@each_kind
def test_a_batch_of_one(name):
    params, state, values = train(name, start(), X[:1], Y[:1], steps=10)
    assert_no_nan(params, state)
    assert values[-1] < values[0]


@pytest.mark.quick(2)
@every_method
@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_a_huge_learning_rate_leaves_no_nan(name, rate):
    params, state, _ = train(name, start(), steps=8, rate=rate)
    assert_no_nan(params, state)


@pytest.mark.quick(3)
@every_method
def test_a_batch_of_nan_is_flagged_and_changes_nothing(name):
    params, state, _ = train(name, start(), steps=3)
    moved, after, _ = train(name, params, X * jnp.nan, steps=1, state=state)
    assert not so.diagnostics(after)["accepted"]
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(moved), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(numbers(memory(state)), numbers(memory(after)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.quick(1)
@each_kind
def test_weight_decay_leaves_a_refused_step_one_of_nothing(name):
    init, step, _ = trainer(name, weight_decay=0.1)
    params, rate = start(), jnp.float32(0.1)
    updates = step(params, init(params), X * jnp.nan, Y, rate)[-1]
    assert all(np.all(u == 0) for u in jax.tree.leaves(updates))
    state = init(params)
    if "soap" in name or name.startswith("kl"):  # which take no first step
        state = step(params, state, X, Y, rate)[1]
    updates = step(params, state, X, Y, rate)[-1]
    np.testing.assert_allclose(updates["unused"], -0.01 * params["unused"], rtol=1e-6)


@pytest.mark.quick(1)
@each_kind
def test_matrices_of_bfloat16_are_remembered_in_float32(name):
    params, state, values = train(name, start("bfloat16"), steps=20)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in numbers(memory(state))} == {jnp.dtype("float32")}
    assert values[-1] < values[0]


@pytest.mark.slow
@of_matrices
def test_matrices_that_are_explicitly_sharded_take_the_same_steps(name):
    f = lambda p: jnp.sum(jnp.cosh(p["w"] - target["w"]))
    target = {"w": jax.random.normal(jax.random.key(0), (8, 8))}

    def updates(params):
        tx = METHODS[name](learning_rate=0.1)

        @jax.jit
        def step(params, state):
            updates, state = tx.update(jax.grad(f)(params), state, params, value_fn=f)
            return optax.apply_updates(params, updates), state, updates

        state = tx.init(params)
        for _ in range(3):
            params, state, update = step(params, state)
        return update["w"]

    alone = updates({"w": jnp.zeros((8, 8))})
    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Explicit,))
    for spec in (("model", None), (None, "model")):
        with jax.set_mesh(mesh):
            sharding = NamedSharding(mesh, PartitionSpec(*spec))
            target = jax.device_put(target, sharding)
            found = updates({"w": jax.device_put(jnp.zeros((8, 8)), sharding)})
        assert found.sharding == sharding
        np.testing.assert_allclose(np.asarray(found), alone, rtol=1e-3, atol=1e-4)


W = jax.random.normal(jax.random.key(5), (4, 4))


@functools.cache
def training(name, batched=False):
    """``(w, target) -> w`` after four steps on a square matrix, whose gradients have full rank."""

    def train(w, target):
        tx = METHODS[name](learning_rate=0.1)
        f = so.compose(so.squared_error(target), lambda p: jnp.tanh(p["w"]) * 2 + p["w"].T)

        def body(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(f)(params), state, params, value_fn=f)
            return (optax.apply_updates(params, updates), state), None

        params = {"w": w}
        return jax.lax.scan(body, (params, tx.init(params)), length=4)[0][0]["w"]

    return jax.jit(jax.vmap(train, (0, None)) if batched else train)


@pytest.mark.quick(1)
@of_matrices
def test_matrices_that_xla_shards_take_the_same_steps(name):
    mesh = jax.make_mesh((2,), ("model",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    rows = NamedSharding(mesh, PartitionSpec("model"))
    alone, spread = training(name)(W, W.T), training(name)(*jax.device_put((W, W.T), rows))
    np.testing.assert_allclose(np.asarray(alone), np.asarray(spread), rtol=1e-3, atol=1e-4)


@pytest.mark.quick(1)
@of_drift
def test_training_many_networks_under_vmap_equals_training_each(name):
    starts = jnp.stack([W, 1.5 * W])
    both = training(name, batched=True)(starts, W.T)
    for i in range(2):
        alone = training(name)(starts[i], W.T)
        np.testing.assert_allclose(both[i], alone, rtol=1e-3, atol=1e-4)


def few_examples(dtype):
    """A gradient of a low rank, whose Grams have null spaces: twin inputs, and more units."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6))
    x = jnp.asarray(np.hstack([x, x[:, ::-1], np.zeros((5, 2))]), dtype)
    f = lambda p: jnp.mean(jax.nn.logsumexp(jnp.tanh(x @ p["a"]) @ p["b"], axis=1))
    draw = lambda *shape: jnp.asarray(0.4 * rng.normal(size=shape), dtype)
    return f, {"a": draw(14, 9), "b": draw(9, 8)}


@pytest.mark.quick(2)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["soap", "shampoo", "shampoo_blocks", "kl_shampoo_blocks"])
def test_a_start_moved_by_its_last_bits_ends_near_by(name, dtype):
    f, start = few_examples(dtype)
    tx = METHODS[name](0.03)
    move = 50 * float(jnp.finfo(dtype).eps)

    @jax.jit
    def ends(params):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(f)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), None, length=6)[0][0]

    here, there = ends(start), ends(jax.tree.map(lambda x: x * (1 + move), start))
    apart = oracles.relative_error(
        *(np.concatenate([x.ravel() for x in jax.tree.leaves(p)]) for p in (there, here))
    )
    assert apart < (1e-9 if dtype == "float64" else 5e-3)
