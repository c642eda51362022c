"""Dense Jacobians in every mode against JAX's own, and what their compiled programs cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import problems
import pytest
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.operators import linearize
from secondorder.operators._passes import cheaper_mode

MODES = ("auto", "forward", "reverse")


def same_tree(found, expected, tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance
        )


def trees_in_and_out(p):
    return {
        "matrix": jnp.outer(p["x"], jnp.sin(p["x"])) * p["deep"][0],
        "number": p["deep"][1][0, 0] * jnp.sum(p["x"]),
        "nothing": None,
        "vector": (p["deep"][1] @ p["x"],),
    }


POINT = {
    "x": jnp.array([1.0, -0.5, 2.0]),
    "deep": (jnp.array(0.7), jnp.ones((2, 3))),
    "absent": None,
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_chunk_size_gives_the_jacobian_of_jacrev(mode):
    # 10 inputs and 12 outputs: chunks of 4 divide only the outputs, 100 exceeds both.
    sizes = (None, 1, 4, 12, 100)
    find = lambda p: [so.jacobian(trees_in_and_out, p, mode=mode, chunk_size=s) for s in sizes]
    expected = jax.jit(jax.jacrev(trees_in_and_out))(POINT)
    for found in jax.jit(find)(POINT):
        same_tree(found, expected, 1e-6)


def test_the_jacobian_agrees_with_finite_differences(x64):
    matrix = jnp.array([[1.0, -0.5], [0.3, 2.0], [0.1, 0.7]])
    fn = lambda p: {"a": jnp.sin(matrix @ p), "b": jnp.prod(p)}
    p = jnp.array([0.4, 1.3])
    found = so.jacobian(fn, p)
    rows = np.concatenate([found["a"], found["b"][None]])
    differences = oracles.finite_differences(fn, p)  # over 2 · 1e-5, which magnifies rounding
    assert oracles.relative_error(rows, differences) < rounding(1e5)


@pytest.mark.quick(2)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["sequences", "two_heads"])
def test_a_per_example_model_has_the_jacobian_of_its_batch(name, mode):
    # 2 and 4 examples: one at a time, in chunks, and in a chunk larger than all
    problem = problems.SPLIT[name]()
    model, sizes = problem.batched.model, (None, 1, 3, 100)
    find = lambda p: [so.jacobian(model, p, mode=mode, chunk_size=size) for size in sizes]
    expected = jax.jit(jax.jacrev(problem.objective.model))(problem.params)
    for found in jax.jit(find)(problem.params):
        same_tree(found, expected, 1e-6)


def test_bfloat16_jacobians_keep_the_dtype_of_jacrev():
    point = jax.tree.map(lambda x: np.asarray(x, jnp.bfloat16), POINT)
    expected = jax.jit(jax.jacrev(trees_in_and_out))(point)
    ways = (("forward", None), ("reverse", None), ("forward", 3), ("reverse", 3))
    find = lambda p: [so.jacobian(trees_in_and_out, p, mode=m, chunk_size=s) for m, s in ways]
    for found in jax.jit(find)(point):
        same_tree(found, expected, 0.02)


@pytest.mark.quick(2)
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 2), (5, 2), (2, 3), (1, 5), (5, 1)])
def test_auto_goes_forward_exactly_up_to_two_inputs_for_an_output(inputs, outputs):
    forward = inputs <= 2 * outputs
    assert cheaper_mode(inputs, outputs) == ("forward" if forward else "reverse")

    @jax.custom_jvp
    def only_forward(p):
        return jnp.ones(outputs) * jnp.sum(p)

    @only_forward.defjvp
    def _(primals, tangents):
        # no transpose exists for a callback
        out = jax.ShapeDtypeStruct((), jnp.float32)
        total = jax.pure_callback(np.sum, out, tangents[0], vmap_method="sequential")
        return only_forward(*primals), jnp.ones(outputs) * total

    find = lambda mode: so.jacobian(only_forward, jnp.ones(inputs), mode=mode)
    np.testing.assert_array_equal(find("forward"), np.ones((outputs, inputs)))
    np.testing.assert_array_equal(find("auto"), np.ones((outputs, inputs)))
    with pytest.raises(ValueError, match="callback"):
        find("reverse")


def test_a_per_example_model_decides_by_one_example():
    p, x = jnp.ones(5), jnp.ones((100, 5))
    batched = so.per_example(so.squared_error(jnp.zeros(100)), lambda p, x: x @ p, x).model
    closed = lambda p: x @ p
    assert linearize(batched, p).mode == "reverse" and linearize(closed, p).mode == "forward"
    assert linearize(batched, p).passes == 1 and linearize(closed, p).passes == 5


# ----------------------------------------------------------------------------------------- costs


def compiled(fn, *args):
    return jax.jit(fn).lower(*args).compile()


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_chunk_bounds_the_memory_of_the_passes(mode):
    # a loop of three steps over 4096 numbers, which XLA cannot fuse away; 64 passes carry 64 of it
    def fn(p):
        last, _ = jax.lax.scan(lambda h, _: (jnp.sin(h), None), jnp.tile(p, 64), length=3)
        return jnp.sum(last.reshape(64, 64), axis=0)

    def temporary(chunk_size):
        find = functools.partial(so.jacobian, fn, mode=mode, chunk_size=chunk_size)
        return compiled(find, jnp.ones(64)).memory_analysis().temp_size_in_bytes

    everything, eighth, single = (temporary(size) for size in (None, 8, 1))
    assert everything > 64 * 4096 * 4 > 3 * eighth > 6 * single


def test_a_chunk_bounds_the_memory_of_examples():
    def model(p, x):
        last, _ = jax.lax.scan(lambda h, _: (jnp.sin(h), None), jnp.tile(p * x, 512), length=3)
        return jnp.sum(last)

    batched = so.per_example(so.squared_error(jnp.zeros(64)), model, jnp.ones((64, 8))).model

    def temporary(chunk_size):
        find = functools.partial(so.jacobian, batched, chunk_size=chunk_size)
        return compiled(find, jnp.ones(8)).memory_analysis().temp_size_in_bytes

    assert temporary(None) > 64 * 4096 * 4
    assert temporary(8) < temporary(None) / 4


def test_examples_apart_save_almost_all_of_the_work_whether_given_or_found():
    # A thousand rows and 1089 parameters: one backward pass for all rows instead of one for each.
    rows, width = 1000, 32
    x, y = problems.draw(0, rows, width), jnp.zeros(rows)
    p = {"w": problems.draw(1, width, width), "b": jnp.zeros(width), "v": problems.draw(2, width)}
    model = lambda p, x: jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]
    loss = so.squared_error(y)
    closed = so.compose(loss, lambda p: model(p, x))
    known = so.per_example(loss, model, x)

    def flops(objective, mode="auto"):
        find = lambda p: so.jacobian(objective.model, p, mode=mode)
        return compiled(find, p).cost_analysis()["flops"]

    def flops_of_factor(objective):
        return compiled(lambda p: so.ggn(objective, p).factor(), p).cost_analysis()["flops"]

    assert flops(known) < flops(closed, "reverse") / 100
    assert flops(closed) < 1.1 * flops(known)
    assert flops_of_factor(closed) < 1.1 * flops_of_factor(known)


# ------------------------------------------------------------------------------------- linearize


@pytest.mark.parametrize("name", ["residual_tree", "sequences", "scalar_output", "softmax_mlp"])
def test_a_linearisation_multiplies_from_both_sides(name, x64):
    problem = problems.SPLIT[name](jnp.float64)
    model, params = problem.objective.model, problem.params

    @jax.jit
    def products(params):
        at = linearize(model, params)
        dense = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in jax.tree.leaves(at.dense())])
        return (
            at.outputs,
            oracles.matrix(at.mv, params),
            oracles.matrix(at.mvt, at.outputs),
            dense,
            oracles.jacobian(model, params),
        )

    outputs, columns, rows, dense, expected = products(params)
    assert_close(oracles.flat(outputs), oracles.flat(model(params)))
    for found in (columns, rows.T, dense):
        assert oracles.relative_error(found, expected) < rounding()


def test_the_transposed_product_takes_any_float_dtype():
    at = linearize(lambda p: p.astype(jnp.bfloat16) ** 2, jnp.array([1.0, 3.0]))
    product = at.mvt(jnp.ones(2, jnp.float32))
    assert product.dtype == jnp.float32
    np.testing.assert_allclose(product, [2.0, 6.0])


# -------------------------------------------------------------------------------------- refusals


def test_an_unknown_mode_or_chunk_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="mode='backward'; pass one of 'auto', 'forward'"):
        so.jacobian(jnp.sin, jnp.ones(2), mode="backward")
    for chunk_size in (0, -3):
        with pytest.raises(ValueError, match=f"chunk_size={chunk_size}; pass a positive"):
            so.jacobian(jnp.sin, jnp.ones(2), chunk_size=chunk_size)
