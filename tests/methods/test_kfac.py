"""K-FAC and EKFAC: what theory promises, and where things go wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training import assert_no_nan, memory, net, numbers, start

import secondorder as so

X = jax.random.normal(jax.random.key(0), (16, 4))
Y = jax.random.randint(jax.random.key(1), (16,), 0, 3)

METHODS = {
    "kfac": functools.partial(so.kfac, refresh_every=2),
    "ekfac": functools.partial(so.ekfac, refresh_every=2),
    "kfac of drift": functools.partial(so.kfac, refresh_every=so.curvature.drift(0.1)),
    "ekfac of drift": functools.partial(so.ekfac, refresh_every=so.curvature.drift(0.1)),
    "kfac of small batches": functools.partial(
        so.kfac, refresh_every=2, momentum=0.8, trust=so.trust.fixed(0.1)
    ),
    "kfac of a given rate": functools.partial(so.kfac, learning_rate=0.1, refresh_every=2),
    "ekfac of a given rate": functools.partial(so.ekfac, learning_rate=0.1, refresh_every=2),
}
every_method = pytest.mark.parametrize("name", METHODS)
# What these take a program of their own for: one of each kind, since the contract has the rest.
each_kind = pytest.mark.parametrize("name", ["kfac", "ekfac of drift", "kfac of a given rate"])
of_drift = pytest.mark.parametrize("name", ["kfac of drift", "ekfac of drift"])


def objective(x, y):
    return so.compose(so.softmax_cross_entropy(y), lambda p: net(p, x.astype(p["in"].dtype)))


def method(name, **settings):
    return METHODS[name](example=objective(X, Y), **settings)


@functools.cache
def trainer(name, **settings):
    """``(params, state, x, y) -> (params, state, value)``, compiled once a shape."""
    tx, traces = method(name, **settings), []

    @jax.jit
    def step(params, state, x, y):
        traces.append(0)
        f = objective(x, y)
        value, grads = jax.value_and_grad(f)(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=f)
        return optax.apply_updates(params, updates), state, value

    return tx.init, step, traces


def train(name, params, x=X, y=Y, steps=6, state=None, **settings):
    init, step, traces = trainer(name, **settings)
    state, values, before = init(params) if state is None else state, [], len(traces)
    for _ in range(steps):
        params, state, value = step(params, state, x, y)
        values.append(float(value))
    assert len(traces) <= before + 1
    return params, state, values


@pytest.mark.quick(1)
@every_method
def test_it_learns(name):
    _, state, values = train(name, start(), steps=25)
    assert values[-1] < 0.5 * values[0]
    assert_no_nan(start(), state)


@pytest.mark.quick(1)
@every_method
def test_a_batch_of_nan_is_flagged_and_changes_nothing(name):
    params, state, _ = train(name, start(), steps=3)
    moved, after, _ = train(name, params, X * jnp.nan, steps=1, state=state)
    assert not so.diagnostics(after)["accepted"]
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(moved), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(numbers(memory(state)), numbers(memory(after)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert train(name, moved, steps=3, state=after)[2][-1] <= train(name, params, steps=1)[2][-1]


@pytest.mark.quick(1)
@every_method
def test_a_dead_layer_and_a_leaf_without_gradient_stay_as_they_are(name):
    params, state, _ = train(name, start(dead=-100.0))  # no unit ever fires
    assert_no_nan(params, state)
    for leaf in ("in", "out", "unused"):
        np.testing.assert_allclose(params[leaf], start()[leaf], atol=1e-6)
    assert np.any(params["bias"] != 0)


@pytest.mark.quick(1)
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


@pytest.mark.quick(1)
@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_a_huge_learning_rate_leaves_no_nan(rate):
    params, state, _ = train("kfac of a given rate", start(), steps=6, learning_rate=rate)
    assert_no_nan(params, state)


@pytest.mark.quick(1)
@pytest.mark.parametrize("damping", [1e-12, 1e4])
def test_a_damping_far_off_is_recovered_from(damping):
    params, state, values = train("kfac", start(), steps=12, trust=damping)
    assert_no_nan(params, state)
    assert values[-1] < values[0]


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(np.float64)


def outside(vector, *span):
    """The part of a vector, relative, that is in no combination of others."""
    columns = np.stack(span, axis=1)
    weights, *_ = np.linalg.lstsq(columns, vector, rcond=None)
    return np.linalg.norm(columns @ weights - vector) / np.linalg.norm(vector)


@pytest.mark.slow
def test_momentum_with_the_quadratic_model_preconditions_the_averaged_gradient():
    """α and μ are fitted to the gradient at hand; Δ is of the mean, and δ the last step."""
    f, p, b = objective(X, Y), start(), 0.8
    plain, averaged = (
        method(
            "kfac",
            momentum=momentum,
            trust=so.trust.fixed(0.1),
            refresh_every=1,
            decay=0.0,
            sample_every=9,
        )
        for momentum in (None, b)
    )
    grads = [jax.jit(lambda x: jax.grad(objective(x, Y))(p))(x) for x in (X, -X, X[::-1])]
    update = jax.jit(lambda grad, state: averaged.update(grad, state, p, value_fn=f))
    state, taken = averaged.init(p), []
    for grad in grads:
        step, state = update(grad, state)
        taken.append(flat(step))
    alone = jax.jit(lambda grad: plain.update(grad, plain.init(p), p, value_fn=f)[0])
    kfac_of = lambda grad: flat(alone(grad))
    mean = jax.tree.map(lambda *g: sum(b ** (2 - i) * x for i, x in enumerate(g)), *grads)
    assert outside(taken[2], kfac_of(mean), taken[1]) < 1e-4
    assert outside(taken[2], kfac_of(grads[2]), taken[1]) > 0.01


@pytest.mark.quick(1)
@pytest.mark.parametrize(("trust", "held"), [(so.trust.fixed(0.03), True), (0.03, False)])
def test_without_trials_the_damping_is_held(trust, held):
    _, state, _ = train("kfac", start(), trust=trust)
    assert (float(so.diagnostics(state)["scale"]) == pytest.approx(0.03)) == held


@pytest.mark.quick(1)
@each_kind
def test_parameters_of_bfloat16_are_remembered_in_float32(name):
    params, state, values = train(name, start("bfloat16"), steps=15)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in numbers(memory(state))} == {jnp.dtype("float32")}
    assert values[-1] < values[0]


@pytest.mark.slow
@of_drift
def test_training_many_networks_under_vmap_equals_training_each(name):
    tx, f = method(name), objective(X, Y)

    def trained(params):
        def body(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(f)(params)
            updates, state = tx.update(grads, state, params, value=value, value_fn=f)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), length=3)[0][0]

    starts = jax.tree.map(lambda x: jnp.stack([x, 1.1 * x]), start())
    both = jax.jit(jax.vmap(trained))(starts)
    for i in range(2):
        alone = train(name, jax.tree.map(lambda x: x[i], starts), steps=3)[0]  # noqa: B023
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------
# Invariance


@pytest.mark.quick(1)
@each_kind
def test_a_burn_in_gathers_statistics_and_moves_nothing(name):
    params, settings = start(), {"burn_in": 3, "weight_decay": 0.1}
    fresh = method(name, **settings).init(params)
    unmoved, state, _ = train(name, params, steps=3, state=fresh, **settings)
    jax.tree.map(np.testing.assert_array_equal, unmoved, params)
    (before,), (after,) = map(so.state.find_states, (fresh, state))
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
    same(
        (before.trust, before.solver, before.rejections),
        (after.trust, after.solver, after.rejections),
    )
    gathered = after.curvature if "rate" in name else after.curvature[1]
    assert int(gathered.samples) == 3 and int(after.count) == 3
    # A batch of NaN is not gathered.
    _, spoilt, _ = train(name, params, x=X * jnp.nan, steps=1, state=fresh, **settings)
    (spoilt,) = so.state.find_states(spoilt)
    same(numbers(spoilt.curvature), numbers(before.curvature))
    moved, _, values = train(name, params, steps=12, state=state, **settings)
    assert values[-1] < values[0] and np.any(moved["in"] != params["in"])


@pytest.mark.slow
def test_minimize_goes_on_after_a_burn_in():
    f = objective(X, Y)
    tx = so.kfac(example=f, burn_in=5)
    solution = so.minimize(f, start(), tx, max_steps=12)
    assert int(solution.steps) == 12 and solution.value < f(start())


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["kfac", "kfac of a given rate"])
def test_an_affine_change_of_a_layers_inputs_and_outputs_changes_no_function(name):
    # Without damping: the published theorem (Martens and Grosse 2015, section 10).
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)), rng.normal(size=(32, 3))
    t, s = (np.eye(d) + 0.3 * rng.normal(size=(d, d)) for d in (4, 5))
    shift = rng.normal(size=4)
    w = {
        "w1": rng.normal(size=(4, 5)),
        "b1": np.zeros(5),
        "w2": rng.normal(size=(5, 3)),
        "b2": np.zeros(3),
    }

    def plain(p):
        return jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    def turned(p):  # the same network, each layer in other coordinates
        return jnp.tanh(((x @ t + shift) @ p["w1"] + p["b1"]) @ s) @ p["w2"] + p["b2"]

    back = np.linalg.inv(t)
    w1 = back @ w["w1"] @ np.linalg.inv(s)
    b1 = (w["b1"] - shift @ back @ w["w1"]) @ np.linalg.inv(s)
    starts = {plain: w, turned: w | {"w1": w1, "b1": b1}}

    def outputs(model):
        f = so.compose(so.squared_error(y), model)
        settings = {"trust": 1e-13, "example": f, "estimator": so.curvature.ggn_components()}
        tx = METHODS[name](**settings)
        params = jax.tree.map(jnp.asarray, starts[model])
        state, found = tx.init(params), []
        step = jax.jit(lambda p, s: tx.update(jax.grad(f)(p), s, p, value_fn=f))
        for _ in range(3):
            updates, state = step(params, state)
            params = optax.apply_updates(params, updates)
            found.append(model(params))
        return found

    for a, b in zip(outputs(plain), outputs(turned), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", [so.kfac, so.ekfac])
def test_a_linear_regression_is_solved_in_one_undamped_step(make):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=(40, 3))
    f = so.compose(so.squared_error(y), lambda p: x @ p["w"] + p["b"])
    params = {"w": jnp.zeros((5, 3)), "b": jnp.zeros(3)}
    tx = make(1.0, trust=1e-14, example=f, estimator=so.curvature.ggn_components())
    update = jax.jit(lambda p: tx.update(jax.grad(f)(p), tx.init(p), p, value_fn=f)[0])
    updates = update(params)
    one = np.hstack([x, np.ones((40, 1))])
    expected = np.linalg.lstsq(one, y, rcond=None)[0]
    np.testing.assert_allclose(np.vstack([updates["w"], updates["b"]]), expected, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# Options


@pytest.mark.parametrize("make", [so.kfac, so.ekfac])
def test_a_missing_example_gives_a_sentence(make):
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'example'"):
        make()


def test_an_example_may_be_of_shapes_alone():
    shapes = jax.ShapeDtypeStruct(X.shape, X.dtype)
    example = lambda p: objective(jnp.zeros(shapes.shape, shapes.dtype), Y)
    tx, known = so.kfac(example=example), method("kfac")
    assert jax.eval_shape(tx.init, start()) == jax.eval_shape(known.init, start())


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["kfac", "kfac of a given rate"])
def test_weight_decay_is_apart_from_the_curvature_and_none_of_a_refused_step(name):
    params, _, _ = train(name, start(), steps=1, weight_decay=0.1)
    rate = 0.1 if "rate" in name else 1.0
    np.testing.assert_allclose(params["unused"], (1 - 0.1 * rate) * start()["unused"], rtol=1e-6)
    refused, _, _ = train(name, start(), X * jnp.nan, steps=1, weight_decay=0.1)
    np.testing.assert_array_equal(refused["unused"], start()["unused"])


def test_curvature_on_the_matrices_and_adam_on_the_rest():
    """As in a language model: embeddings, norms and biases are Adam's."""
    f, params = objective(X, Y), start()
    labels = {"in": "layers", "out": "layers", "dead": "rest", "bias": "rest", "unused": "rest"}
    layers = so.kfac(example=lambda p: so.restrict(f, params), refresh_every=2)
    tx = optax.partition({"layers": layers, "rest": optax.adam(0.01)}, labels)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(f)(params)
        updates, state = tx.update(
            grads, state, params, value=value, value_fn=so.restrict(f, params)
        )
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for _ in range(15):
        params, state, value = step(params, state)
        values.append(value)
    assert values[-1] < 0.6 * values[0]


@pytest.mark.quick(1)
@pytest.mark.parametrize("method", [so.kfac, so.ekfac, so.sophia])
def test_a_loss_of_ones_own_is_sampled_by_the_root_of_its_curvature(method):
    own = lambda z: jnp.mean(jax.nn.logsumexp(z, -1) - z[jnp.arange(16), Y]) + jnp.mean(z**4)
    f = so.compose(own, lambda p: net(p, X))
    params = start()
    given = {} if method is so.sophia else {"example": f}

    def updates(**options):
        opt = method(**given, **options)

        @jax.jit
        def step(p):
            value, grads = jax.value_and_grad(f)(p)
            known = {"value": value, "grad": grads, "value_fn": f}
            return opt.update(grads, opt.init(p), p, **known)[0]

        return step(params)

    found, expected = updates(), updates(estimator=so.curvature.ggn_sample())
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    with pytest.raises(TypeError, match=r"estimator=secondorder.curvature.ggn_sample\(\)"):
        updates(estimator=so.curvature.fisher_sample())
