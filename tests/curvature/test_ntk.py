"""Grams of the samples from layer statistics, against J written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_models import CASES, draw
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.curvature import _ntk as grams
from secondorder.curvature import ntk
from tests import oracles

QUICK = (
    "attention",
    "biases of two minds",
    "mapped convolution",
    "mlp",
    "not understood",
    "recurrent",
    "stacked layers",
    "tied embedding",
)
KINDS = [
    pytest.param(case, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for name, case in CASES.items()
]
EXAMPLES = np.random.default_rng(0).normal(size=(5, 3))


def compiled(fn, *arguments):
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0})(*arguments)


def assert_gram_is_dense(f, params):
    run = lambda p: (grams.jacobian_gram(f, p), oracles.jacobian(f.model, p))
    gram, j = map(np.asarray, compiled(run, params))
    assert_close(gram, j @ j.T)


def step_of(tx, f, params):
    update = lambda p: tx.update(jax.grad(f)(p), tx.init(p), p, value_fn=f)
    step, state = compiled(update, params)
    return oracles.flat(step), so.diagnostics(state)


def bare(p, x):
    """One example through two layers: 3 inputs, 2 outputs."""
    return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"] + p["c"]


def bare_params(width=8):
    shapes = {"b": (width,), "c": (2,), "v": (width, 2), "w": (3, width)}
    return {name: draw(i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def per_example(loss, model=bare, examples=EXAMPLES):
    return so.per_example(loss, model, examples)


@pytest.mark.quick(4)
@pytest.mark.parametrize("case", KINDS)
def test_the_gram_of_any_layers_is_that_of_the_dense_jacobian(x64, monkeypatch, case):
    model, params, _, independent = case()
    outputs = jax.eval_shape(model, params)
    if not independent or not all(z.ndim for z in jax.tree.leaves(outputs)):
        pytest.skip("no examples that are apart")
    f = so.sum_of_squares(model)
    few = so.tree.size(outputs) < 600  # else pairs of positions, far from cheaper, take minutes

    def both_ways(p):
        for pairs in (True, False) if few else (False,):
            monkeypatch.setattr(grams, "pairs_are_cheaper", lambda *shapes, to=pairs: to)
            yield grams.jacobian_gram(f, p)

    run = lambda p: (oracles.jacobian(model, p), *both_ways(p))
    j, *found = map(np.asarray, compiled(run, params))
    for gram in found:
        assert_close(gram, j @ j.T)


def test_one_odd_leaf_and_one_without_examples_add_their_columns(x64):
    grid = draw(7, 5, 2)  # as many rows as there are examples, and none of them is one

    def model(p, x):
        shift = jnp.sum(jnp.tanh(grid @ p["grid"]), axis=0)
        return jnp.exp(p["odd"]) * bare(p, x) + shift

    f = per_example(so.squared_error(np.zeros((5, 2))), model)
    params = bare_params() | {"grid": draw(8, 2, 2), "odd": draw(9, 2)}
    kinds = {row.leaf: row.block.split()[0] for row in so.layer_table(f, params)}
    assert kinds["['odd']"] == "fallback" and kinds["['grid']"] == kinds["['w']"] == "dense"
    assert_gram_is_dense(f, params)


# A vector, or a table, that enters a product and is also added, or multiplied, entry by entry; and
# weights that also enter complex arithmetic.
TWO_ROLES = {
    "a product, then a shift": lambda p, x: jnp.tanh(x * (x @ p["v"])) + p["v"],
    "a shift, then a product": lambda p, x: (jnp.tanh(p["w"] @ x + p["v"]) @ p["v"])[None],
    "a product and a scale": lambda p, x: jnp.sin(x * p["v"]) * (x @ p["v"]),
    "a kernel and its own bias": lambda p, x: p["v"] * x[0] + p["v"] + jnp.sin(p["w"] @ x),
    "a look-up and a shift": lambda p, x: jnp.tanh(p["v"][jnp.argmax(x)] + x + p["v"]),
    "a product and a Fourier transform": lambda p, x: (
        jnp.tanh(p["w"] @ x) + jnp.real(jnp.fft.fft(p["w"])) @ x
    ),
    "a product and a complex one": lambda p, x: (
        jnp.tanh(p["w"] @ x) + jnp.imag((p["w"].astype(complex) * 1j) @ x)
    ),
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", TWO_ROLES)
def test_a_leaf_of_two_roles_adds_its_columns(name, x64):
    params, examples = {"v": draw(1, 4), "w": draw(2, 4, 4)}, draw(3, 5, 4)
    outputs = jax.eval_shape(TWO_ROLES[name], params, examples[0])
    f = so.per_example(so.squared_error(np.zeros((5, *outputs.shape))), TWO_ROLES[name], examples)
    assert_gram_is_dense(f, params)


def test_a_model_with_derivatives_inside_is_tapped_at_all_its_uses(x64):
    def laplacian(p, x):
        u = lambda x: bare(p, x)[0]
        bend = lambda e: jax.jvp(jax.grad(u), (x,), (e,))[1] @ e
        return sum(bend(e) for e in np.eye(3)) + u(x)

    f = per_example(so.losses.half_sum_of_squares(), laplacian)
    params = bare_params()
    assert_gram_is_dense(f, params)


LOSSES = {
    "squared error": so.squared_error(np.ones((5, 2))),
    "classes": so.softmax_cross_entropy(np.array([0, 1, 1, 0, 1])),
    "any convex function": lambda z: jnp.sum(jnp.logaddexp(z[:, 0], 2 * z[:, 1])) + jnp.sum(z**4),
}


def test_with_few_parameters_the_rows_are_formed_and_it_is_said(x64):
    f = per_example(so.squared_error(np.ones((5, 2))))
    params = bare_params(width=1)
    step, found = step_of(so.natural_gradient(1.0, layers=True), f, params)
    assert found["dimension"] == so.tree.size(params) == 8 and found["jacobians"] == 1
    np.testing.assert_allclose(step, step_of(so.natural_gradient(1.0), f, params)[0], rtol=1e-8)


@pytest.mark.quick(1)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_root_of_any_loss_stands_on_both_sides(x64, loss):
    f, params = per_example(loss), bare_params()

    def both(p):
        known, _ = ntk().update(None, (), p, f)
        implicit, formed = known.rows(), so.ggn(f, p).rows()
        assert not implicit.formed and implicit.matrix is None and formed.matrix is not None
        assert implicit.shape == formed.shape and implicit.passes == formed.passes == 2
        m, n = formed.shape
        v, u = jnp.arange(1.0, n + 1), jnp.arange(1.0, m + 1)
        grams_of = lambda rows: (rows.sample_gram(), rows.parameter_gram(), rows.residual)
        products = lambda rows: (rows.mv(v), rows.mvt(u))
        return [grams_of(rows) + products(rows) for rows in (implicit, formed)]

    for found, expected in zip(*compiled(both, params), strict=True):
        assert_close(found, expected, 10)  # of sums whose terms have both signs


def test_a_tree_of_outputs_is_in_the_order_of_its_rows(x64):
    def model(p, x):
        hidden = jnp.tanh(x @ p["w"] + p["b"])
        return {"one": jnp.sum(hidden), "two": (hidden @ p["v"])[None]}

    f, params = per_example(so.losses.half_sum_of_squares(), model), bare_params()
    del params["c"]
    assert_gram_is_dense(f, params)


def wide(count=16, width=64):
    """A network of many more parameters than outputs, and its training objective."""
    x = np.random.default_rng(1).normal(size=(count, width))
    params = {"a": draw(0, width, width), "b": draw(1, width, width), "c": draw(2, width, 3)}
    model = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
    return so.per_example(so.softmax_cross_entropy(np.arange(count) % 3), model, x), params


def updated(tx, f, params):
    """One update, as a compiled program of the parameters alone."""

    def update(p):
        value, grad = jax.value_and_grad(f)(p)
        return tx.update(grad, tx.init(p), p, value=value, grad=grad, value_fn=f)

    return jax.jit(update).lower(params).compile()


def test_a_step_is_that_of_the_rows_and_none_of_them_is_formed(x64):
    f, params = wide()
    kinds = [so.natural_gradient(1.0, trust=1e-3, layers=layers) for layers in (True, False)]
    programs = [updated(tx, f, params) for tx in kinds]
    (step, state), (reference, by_rows) = (program(params) for program in programs)
    gram = compiled(lambda p: grams.jacobian_gram(f, p), params)
    kappa = 1 + np.linalg.norm(gram, 2) / len(gram) / 1e-3
    assert_close(oracles.flat(step), oracles.flat(reference), kappa)
    memory, more = (p.memory_analysis().temp_size_in_bytes for p in programs)
    size = 48 * so.tree.size(params) * 8
    assert memory < 0.4 * size < size <= more
    found, other = so.diagnostics(state), so.diagnostics(by_rows)
    assert found["dimension"] == other["dimension"] == 48
    assert found["jacobians"] == 0 and other["jacobians"] == 1
    assert found["products"] == other["products"] == 3  # backward passes, one for each output
    assert found["residual"] < rounding(kappa) and np.isinf(other["residual"])


@pytest.mark.slow
def test_minimize_forms_no_jacobian_for_it(x64):
    f, params = per_example(so.squared_error(np.ones((5, 2)))), bare_params()
    solve = lambda layers: so.minimize(f, params, so.natural_gradient(layers=layers), max_steps=4)
    found, reference = solve(True), solve(False)
    assert found.evaluations.jacobians == 0 and found.evaluations.products > 0
    assert reference.evaluations.jacobians > 0
    np.testing.assert_allclose(found.value, reference.value, rtol=1e-6, atol=rounding(1e4) ** 2)


@pytest.mark.slow
def test_chunks_give_the_step_of_the_whole(x64):
    batch = {"x": np.random.default_rng(2).normal(size=(6, 3)), "y": np.arange(6) % 2}
    of = lambda b: so.per_example(so.softmax_cross_entropy(b["y"]), bare, b["x"])
    params, tx = bare_params(), so.natural_gradient(1.0, trust=1e-3, layers=True)
    whole, parts = (step_of(tx, f, params)[0] for f in (of(batch), so.chunked(of, batch, 2)))
    np.testing.assert_allclose(parts, whole, rtol=1e-8)


def test_examples_that_may_see_one_another_are_refused():
    params, tx = bare_params(), so.natural_gradient(1.0, layers=True)
    f = so.compose(so.squared_error(np.zeros((5, 2))), lambda p: bare(p, EXAMPLES))
    with pytest.raises(TypeError, match=r"examples apart.*per_example"):
        tx.update(params, tx.init(params), params, value_fn=f)


def test_a_gram_of_layers_and_a_solver_that_needs_none_are_refused():
    with pytest.raises(ValueError, match="one of the two"):
        so.natural_gradient(layers=True, solver=so.solvers.cg())
