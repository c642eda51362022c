"""Layer statistics: whatever a model looks like, they sum to its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_models import (
    CASES,
    SEQUENCES,
    X,
    affine,
    check,
    described,
    draw,
    mlp,
    not_understood,
    stacked_layers,
)
from tolerances import assert_close

import secondorder as so
from secondorder import layers


@pytest.mark.quick(3)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_inputs_and_sensitivities_sum_to_the_gradient(x64, case):
    model, params, blocks, independent = case()
    found = check(model, params, independent=independent)
    assert described(found.layout, found.statistics) == set(blocks)


REASONS = {
    "squared": "'integer_pow'",
    "both": "'sin'",
    "left": "another parameter",
    "right": "another parameter",
    "log": "'exp'",
    "divisor": "divided by it",
    "branch": "branch of a cond",
    "loop": "cut into pieces",
    "pieces": "cut into pieces",
    "stopped": "no gradient",
    "dead": "no gradient",
    "masked": "entry by entry",
    "returned": "among its outputs",
}


def test_every_leaf_that_is_not_understood_says_why(x64):
    model, params, _, _ = not_understood()
    table = so.layer_table(so.sum_of_squares(model), params)
    told = {row.leaf: row.reason for row in table}
    assert len(told) == len(params) == len(REASONS)
    for leaf, words in REASONS.items():
        assert words.lower() in told[f"['{leaf}']"].lower()
    with pytest.raises(ValueError, match="13 of 13 leaves") as error:
        so.layer_table(so.sum_of_squares(model), params, strict=True)
    assert all(leaf in str(error.value) and why in str(error.value) for leaf, why in told.items())


@pytest.mark.parametrize(
    ("multiply", "leaves"),
    [
        (lambda f, p: f * jnp.fft.rfft(p["w"]), {"w": 4}),
        (lambda f, p: f * jax.lax.complex(p["re"], p["im"]), {"re": 3, "im": 3}),
        (lambda f, p: f * (p["re"] + 1j * p["im"]), {"re": 3, "im": 3}),
        (lambda f, p: f @ p["w"].reshape(3, 3).astype(complex), {"w": 9}),
        (lambda f, p: f @ p["w"].reshape(3, 3), {"w": 9}),
        (lambda f, p: f * jnp.fft.rfft(p["w"]) + jnp.ones((5, 4)) @ p["w"][:, None], {"w": 4}),
    ],
)
def test_a_weight_in_complex_arithmetic_is_a_fallback_that_says_so(multiply, leaves):
    padded = jnp.pad(X, ((0, 0), (0, 1)))
    model = lambda p: jnp.fft.irfft(multiply(jnp.fft.rfft(padded), p), 4)
    params = {name: jnp.linspace(1.0, 2.0, size) for name, size in leaves.items()}
    objective = so.compose(so.squared_error(np.zeros((5, 4))), model)
    for row in so.layer_table(objective, params):
        assert row.block.startswith("fallback")
        assert "It enters complex arithmetic, which is not followed" in row.reason


def test_a_real_layer_before_complex_arithmetic_is_still_a_layer():
    model = lambda p: jnp.abs(jnp.fft.rfft(X @ p["w"] + p["b"]))
    objective = so.compose(so.squared_error(np.zeros((5, 3))), model)
    table = so.layer_table(objective, {"b": jnp.zeros(4), "w": jnp.zeros((3, 4))})
    assert [row.block for row in table] == ["dense (1, 4, 4)"] * 2


def test_a_layer_table_reads_as_a_table():
    loss = so.squared_error(np.zeros((5, 4)))
    objective = so.compose(loss, lambda p: jnp.sin(X @ p["w"] + p["b"]) * jnp.exp(p["log"]))
    shapes = {"b": (4,), "log": (4,), "w": (3, 4)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    table = so.layer_table(objective, params)
    assert [(row.leaf, row.block) for row in table] == [
        ("['b']", "dense (1, 4, 4)"),
        ("['log']", "fallback (1, 1, 4)"),
        ("['w']", "dense (1, 4, 4)"),
    ]
    lines = str(table).splitlines()
    assert lines[0].split() == ["leaf", "block", "reason"]
    assert len({line.index(row.block) for line, row in zip(lines[1:], table, strict=True)}) == 1
    cells = "<tr><td>[&#x27;log&#x27;]</td><td>fallback (1, 1, 4)</td>"
    assert cells in table._repr_html_() and table._repr_html_().count("<tr>") == 4
    with pytest.raises(TypeError, match="compose"):
        so.layer_table(lambda p: 0.0, params)


def test_outputs_are_the_models_own_bit_for_bit(x64):
    case = mlp()
    tapped = layers.instrumented(case.model, case.params, layers.read(case.model, case.params))
    np.testing.assert_array_equal(tapped.outputs, case.model(case.params))


def test_a_model_that_computes_in_bfloat16_has_statistics_in_float32():
    half = lambda x: jnp.asarray(x, jnp.bfloat16)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), affine(3, 4))
    model = lambda p: jnp.tanh(half(X) @ half(p["w"]) + half(p["b"]))
    found = check(model, params, tolerance=0.02)
    assert described(found.layout, found.statistics) == {"w b: dense 1 4 4: 5 1"}
    assert found.outputs.dtype == jnp.bfloat16 and found.grads["w"].dtype == jnp.float32


def test_scans_and_checkpoints_stay_what_they_are():
    case = stacked_layers(remat=True)
    layout = layers.read(case.model, case.params)

    def primitives(fn):
        text = str(jax.make_jaxpr(fn)(case.params))
        return text.count("scan["), text.count("remat"), text.count("dot_general[")

    def plain(p):
        outputs, pull = jax.vjp(case.model, p)
        return pull(jnp.ones_like(outputs))

    def tapped(p):
        outputs, pull, _ = layers.instrumented(case.model, p, layout)
        return pull(jnp.ones_like(outputs))

    assert primitives(tapped) == primitives(plain)


def test_a_layout_serves_every_batch_size_and_no_other_model():
    params = affine(3, 4)
    on = lambda batch: lambda p: jnp.tanh(batch @ p["w"] + p["b"])
    layout = layers.read(on(X), params)
    outputs, pull, _ = layers.instrumented(on(X[:2]), params, layout)
    _, ((use,),) = pull(outputs)
    assert use.inputs.shape == (1, 2, 1, 4)
    with pytest.raises(ValueError, match="in another way.*dense.*bias"):
        layers.instrumented(lambda p: on(X)(p) + jnp.sum(p["w"] ** 2), params, layout)
    with pytest.raises(ValueError, match="2 leaves, but these have 1"):
        layers.instrumented(lambda p: X @ p, params["w"], layout)


def test_one_example_alone_is_read_as_a_batch_is():
    def on(batch):
        def model(p):
            h = jnp.tanh(batch * p["gain"] + p["position"])
            return jnp.tanh(jnp.einsum("ntd,dhe->nthe", h, p["w"]) + p["b"])[:, 0]

        return model

    params = {"gain": draw(0, 4, 3), "position": draw(1, 4, 3)}
    params |= {"w": draw(2, 3, 2, 2), "b": draw(3, 2, 2)}
    layout = layers.read(on(SEQUENCES), params)
    assert {block.kind for block in layout.blocks} == {"dense", "scale and shift"}
    _, uses = jax.eval_shape(
        lambda p: layers.instrumented(on(SEQUENCES[:1]), p, layout).pull(jnp.zeros((1, 2, 2))),
        params,
    )
    sizes = {use.sensitivities.shape for (use,) in uses}
    assert sizes == {(1, 1, 1, 24), (1, 1, 4, 4)}


def test_without_a_common_axis_of_the_outputs_every_position_is_an_example(x64):
    model = lambda p: (jnp.sin(X @ p["w"]), 0.5 * jnp.sum(p["v"] @ X.T, axis=1))
    found = check(model, {"w": draw(0, 3, 4), "v": draw(1, 2, 3)}, independent=False)
    assert described(found.layout, found.statistics) == {
        "w: dense 1 3 4: 5 1",
        "v: dense 1 3 2: 5 1",
    }
    assert all("not known" in block.reason for block in found.layout.blocks)


def test_leaves_without_a_derivative_are_left_alone():
    params = {"w": jnp.ones((3, 2)), "none": None, "empty": jnp.zeros((0, 2)), "many": 3}
    layout = layers.read(lambda p: X @ p["w"] * p["many"] + jnp.sum(p["empty"]), params)
    empty, many, dense = layout.blocks
    assert "empty" in empty.reason and "int32" in many.reason and dense.kind == "dense"


def test_side_effects_still_happen(capfd):
    def model(p):
        h = X @ p
        jax.debug.print("the largest is {}", jnp.max(h))
        return h

    params = jnp.ones((3, 2))
    layout = layers.read(model, params)
    assert [block.kind for block in layout.blocks] == ["dense"]
    jax.block_until_ready(layers.instrumented(model, params, layout).outputs)
    jax.effects_barrier()
    assert "the largest is" in capfd.readouterr().out


def test_explicitly_sharded_parameters_and_batches_are_tapped():
    if jax.device_count() < 8:
        pytest.skip("needs the eight CPU devices of conftest.py")
    axis_types = (jax.sharding.AxisType.Explicit,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=axis_types)
    spread = lambda x, *names: jax.device_put(x, jax.NamedSharding(mesh, jax.P(*names)))
    x = np.asarray(draw(0, 8, 4), np.float32)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), affine(4, 6))

    def run(p, x):
        model = lambda p: jnp.tanh(x @ p["w"] + p["b"])
        outputs, pull, _ = layers.instrumented(model, p, layers.read(model, p))
        return pull(outputs)

    alone = jax.jit(run)(params, x)
    with jax.set_mesh(mesh):
        placed = {"w": spread(params["w"], None, "model"), "b": spread(params["b"], "model")}
        found = jax.jit(run)(placed, spread(x, "data", None))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), alone, found)


def test_one_backward_pass_can_be_taken_of_many_cotangents(x64):
    case = mlp()
    layout = layers.read(case.model, case.params)

    @jax.jit
    def run(p):
        outputs, pull, _ = layers.instrumented(case.model, p, layout)
        return [pull(c * jnp.ones_like(outputs))[1] for c in (1.0, 2.0)]

    once, twice = run(case.params)
    for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True):
        assert np.allclose(a, b) or np.allclose(2 * a, b)


def test_statistics_can_be_differentiated_and_batched(x64):
    params = affine(3, 2)

    def trace(p, x):
        model = lambda p: jnp.tanh(x @ p["w"] + p["b"])
        outputs, pull, _ = layers.instrumented(model, p, layers.read(model, p))
        _, ((use,),) = pull(outputs)
        return jnp.sum(use.sensitivities**2)

    def written_out(p, x):
        outputs = jnp.tanh(x @ p["w"] + p["b"])
        return jnp.sum((outputs * (1 - outputs**2)) ** 2)

    xs = jnp.stack([X, 2 * X])
    found = jax.vmap(jax.grad(trace), (None, 0))(params, xs)
    expected = jax.vmap(jax.grad(written_out), (None, 0))(params, xs)
    jax.tree.map(lambda a, b: assert_close(a, b), found, expected)
    tangent = jax.tree.map(jnp.ones_like, params)
    forward = jax.jvp(lambda p: trace(p, X), (params,), (tangent,))[1]
    assert np.isclose(
        forward, sum(map(jnp.sum, jax.tree.leaves(jax.tree.map(lambda x: x[0], expected))))
    )
