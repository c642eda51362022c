"""Gauss-Newton, Fisher and empirical Fisher against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import problems
import pytest
from tolerances import assert_close, rounding

import secondorder as so

NO_EXAMPLES = {
    "residual_tree",
    "plain_loss",
    "penalised",
}  # for these an empirical Fisher means nothing


def arithmetic(dtype):
    return jax.enable_x64(dtype == "float64")


@functools.cache
def expected(name):
    """The answers by brute force in float64, whatever precision they are compared in."""
    with arithmetic("float64"):
        problem = problems.SPLIT[name](jnp.float64)

        @jax.jit
        def by_brute_force():
            found = {"ggn": oracles.ggn(problem), "gradient": oracles.gradient(problem)}
            if name not in NO_EXAMPLES:
                found["empirical_fisher"] = oracles.empirical_fisher(problem)
            return found

        found = by_brute_force()
        if problem.family is not None:
            found["fisher"] = oracles.fisher(problem)
        return {kind: np.asarray(x) for kind, x in found.items()}


@pytest.mark.quick(2)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", problems.SPLIT)
def test_every_matrix_is_the_one_by_brute_force(name, dtype):
    with arithmetic(dtype):
        problem = problems.SPLIT[name](dtype)
        kinds = [kind for kind in expected(name) if kind != "gradient"]

        @jax.jit
        def matrices(params):
            found = {}
            for kind in kinds:
                op = getattr(so, kind)(problem.objective, params)
                if kind == "fisher":  # without a key it is ggn under another name
                    found["fisher"] = so.dense(op, params)
                    continue
                if dtype == "float64":
                    found[f"{kind} products"] = oracles.matrix(op.mv, params)
                rows = op.factor()
                found[f"{kind} factor"] = rows.T @ rows
                found[f"{kind} dense"] = so.dense(op, params)
                if kind == "ggn":
                    found["gradient from the residual"] = rows.T @ op.residual()
            return found

        for key, matrix in matrices(problem.params).items():
            assert matrix.dtype == dtype, key
            error = oracles.relative_error(matrix, expected(name)[key.split()[0]])
            assert error < rounding(10, dtype=dtype), (key, error)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["logistic", "sequences", "two_heads", "soft_l1_fit"])
def test_both_forms_of_an_objective_give_the_same_numbers(name, x64):
    problem = problems.SPLIT[name](jnp.float64)
    v = jax.tree.map(jnp.cos, problem.params)

    @functools.partial(jax.jit, static_argnums=0)
    def numbers(form, params):
        objective = getattr(problem, form)
        ggn, empirical = so.ggn(objective, params), so.empirical_fisher(objective, params)
        found = {
            "value": objective(params),
            "ggn": so.dense(ggn, params),
            "ggn product": so.ggnvp(objective, params, v),
            "empirical Fisher factor": empirical.factor(),
            "empirical Fisher product": empirical.mv(v),
        }
        if name in ("sequences", "two_heads"):
            found["drawn Fisher"] = so.fisher(objective, params, jax.random.key(0), 2).mv(v)
        return found

    closed, known = numbers("objective", problem.params), numbers("batched", problem.params)
    for key in closed:
        error = oracles.relative_error(oracles.flat(known[key]), oracles.flat(closed[key]))
        assert error < rounding(), (key, error)


# ------------------------------------------------------------------------------- the sampled Fisher


@pytest.mark.slow
def test_the_sampled_fisher_of_a_total_is_that_of_its_terms():
    # Their examples differ in number and in how many axes count them.
    x, labels = problems.draw(40, 2, 3, 2), jnp.array([[0, 1, 1], [1, 0, 1]])
    loss = so.losses.total(so.softmax_cross_entropy(labels), so.losses.half_sum_of_squares())
    objective = so.compose(loss, lambda p: (x @ p["w"], 0.5 * p["w"]))
    params, seeds = {"w": problems.draw(41, 2, 2)}, 1000

    @jax.jit
    def draws(params):
        draw = lambda key: so.fisher(objective, params, key, samples=2)
        dense = lambda key: so.dense(draw(key), params)
        factor = draw(jax.random.key(3)).factor()
        one = factor.T @ factor, dense(jax.random.key(3))
        return jax.lax.map(dense, jax.random.split(jax.random.key(0), seeds)), one

    drawn, (squared, one) = draws(params)
    assert oracles.relative_error(squared, one) < 1e-5
    exact = np.asarray(so.dense(so.fisher(objective, params), params), np.float64)
    bar = np.std(drawn, axis=0) / np.sqrt(seeds)
    assert np.all(np.abs(np.mean(drawn, axis=0) - exact) < 5 * bar + 1e-6)
    assert np.all(np.diag(bar) < 0.1 * np.diag(exact))
    with pytest.raises(TypeError, match="no examples of its own"):
        so.empirical_fisher(objective, params)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", ["logistic", "poisson", "sequences", "two_heads"])
def test_the_sampled_fisher_is_right_in_expectation(name):
    problem, seeds = problems.SPLIT[name](), 1000

    @jax.jit
    def draws(params):
        draw = lambda key: so.dense(so.fisher(problem.objective, params, key), params)
        return jax.lax.map(draw, jax.random.split(jax.random.key(0), seeds), batch_size=200)

    drawn = np.asarray(draws(problem.params), np.float64)
    exact = expected(name)["fisher"]
    bar = drawn.std(axis=0, ddof=1) / np.sqrt(seeds)
    assert np.all(bar < 0.2 * np.abs(exact).max())  # else the next line could not fail
    assert np.all(np.abs(drawn.mean(axis=0) - exact) < 5 * bar + 1e-6 * np.abs(exact).max())
    assert np.linalg.norm(drawn.mean(axis=0) - exact) > 1e-6  # these are draws, not the expectation


def test_more_samples_have_less_variance():
    problem = problems.logistic()

    @functools.partial(jax.jit, static_argnums=0)
    def spread(samples):
        keys = jax.random.split(jax.random.key(1), 400)
        draw = lambda key: so.dense(
            so.fisher(problem.objective, problem.params, key, samples), problem.params
        )
        return jnp.sum(jnp.var(jax.vmap(draw)(keys), axis=0))

    assert 6 < spread(1) / spread(8) < 10.5  # about a factor of 8


def test_more_samples_extend_the_draw():
    problem = problems.logistic()

    @jax.jit
    def lowest_and_size(key):
        draw = lambda n: so.fisher(problem.objective, problem.params, key, n)
        three, two = (n * so.dense(draw(n), problem.params) for n in (3, 2))
        # the third sample's outer products alone
        return jnp.linalg.eigvalsh(three - two)[0], jnp.linalg.norm(three)

    lowest, size = jax.vmap(lowest_and_size)(jax.random.split(jax.random.key(2), 8))
    assert np.all(lowest > -1e-5 * size)


def test_the_draw_is_held_so_products_are_linear():
    problem = problems.logistic()
    params = problem.params
    u, v = jax.tree.map(jnp.sin, params), jax.tree.map(jnp.cos, params)
    combine = lambda a, b: jax.tree.map(lambda x, y: 2 * x - 3 * y, a, b)

    @jax.jit
    def products(key):
        op = so.fisher(problem.objective, params, key, samples=2)
        matrices = oracles.matrix(op.mv, params), so.dense(op, params), op.factor()
        return op.mv(combine(u, v)), combine(op.mv(u), op.mv(v)), *matrices

    combined, separate, by_products, dense, factor = products(jax.random.key(3))
    assert oracles.relative_error(oracles.flat(combined), oracles.flat(separate)) < 1e-5
    assert oracles.relative_error(by_products, dense) < 1e-5
    assert oracles.relative_error(factor.T @ factor, dense) < 1e-5
    other = products(jax.random.key(4))
    assert oracles.relative_error(other[3], dense) > 0.01


def test_a_sampled_operator_offers_no_residual():
    problem = problems.logistic()
    assert so.fisher(problem.objective, problem.params, jax.random.key(0)).residual() is None
    assert so.empirical_fisher(problem.objective, problem.params).residual() is None
    assert so.fisher(problem.objective, problem.params).residual() is not None


def test_the_fisher_ignores_the_labels_and_the_empirical_fisher_does_not():
    x, p = problems.draw(0, 5, 2), problems.draw(1, 2)
    losses = [so.sigmoid_cross_entropy(jnp.full(5, label)) for label in (0.0, 1.0)]
    zeros, ones = (so.compose(loss, lambda p: x @ p) for loss in losses)
    drawn = lambda f: so.fisher(f, p, jax.random.key(0)).factor()
    empirical = lambda f: so.empirical_fisher(f, p).factor()
    drawn_, empirical_ = jax.jit(lambda: [[of(zeros), of(ones)] for of in (drawn, empirical)])()
    assert np.array_equal(*drawn_)
    assert oracles.relative_error(*(rows.T @ rows for rows in empirical_)) > 0.1


# ------------------------------------------------------------------------------------- conduct


def test_an_operator_runs_the_users_model_once():
    calls = []

    def model(p):
        calls.append(p)
        return jnp.tanh(p)

    objective = so.compose(so.squared_error(jnp.zeros(3)), model)
    p = jnp.arange(3.0)
    for kind in (so.ggn, so.fisher, so.empirical_fisher):
        calls.clear()
        op = kind(objective, p)
        for _ in range(3):
            op.mv(p)
        jax.jit(lambda v, op=op: jax.lax.fori_loop(0, 5, lambda i, v: op.mv(v), v))(p)
        so.dense(op, p)
        op.factor()
        assert len(calls) == 1, kind


def test_an_operator_outlives_the_jit_it_was_used_in():
    problem = problems.rosenbrock()
    p = problem.params
    op = so.ggn(problem.objective, p)
    inside = jax.jit(lambda: (so.dense(op, p), op.factor(), op.mv(p)))()
    outside = so.dense(op, p), op.factor(), op.mv(p)
    assert oracles.relative_error(oracles.flat(inside), oracles.flat(outside)) < 1e-6

    @jax.jit
    def in_both_branches(p):
        op = so.ggn(problem.objective, p)
        read = lambda: (op.factor(), op.mv(p))
        return jax.lax.cond(p[0] > 0, read, read), read()

    branch, after = in_both_branches(p)
    assert oracles.relative_error(oracles.flat(branch), oracles.flat(after)) < 1e-6


def test_bfloat16_parameters_keep_their_dtype_and_most_of_their_digits():
    small, full = problems.logistic(jnp.bfloat16), problems.logistic(jnp.float32)
    same = jax.tree.map(lambda x: x.astype(jnp.float32), small.params)
    for kind in (so.ggn, so.empirical_fisher):

        @jax.jit
        def parts(p, kind=kind):
            op, exact = kind(small.objective, p), so.dense(kind(full.objective, same), same)
            return op.mv(p), op.mv(same), op.factor(), so.dense(op, p), exact

        *parts_, dense, exact = parts(small.params)
        dtypes = [{x.dtype.name for x in jax.tree.leaves(part)} for part in (*parts_, dense)]
        assert dtypes == [{"bfloat16"}, {"float32"}, {"float32"}, {"float32"}]
        assert oracles.relative_error(dense, exact) < 0.03


def test_coefficients_of_bfloat16_outputs_accumulate_in_float32():
    # 4096 entries of 1.0039 each: summed in bfloat16, which has 8 bits, they would stop at 256.
    outputs = jnp.full((1, 4096), 1.0, jnp.bfloat16)
    objective = so.compose(so.squared_error(jnp.zeros((1, 4096))), lambda p: outputs * p)
    op = so.empirical_fisher(objective, jnp.ones((), jnp.bfloat16))
    np.testing.assert_allclose(op.factor(), [[4096.0]], rtol=1e-3)


def test_a_half_precision_gradient_does_not_round_the_empirical_fisher():
    # a slope of 1 + 1/300 is lost in bfloat16, whose spacing at 1 is 1/128
    outputs, target = jnp.ones((1, 2), jnp.bfloat16), jnp.array([[-1 / 300, 0.0]])
    op = so.empirical_fisher(
        so.compose(so.squared_error(target), lambda p: outputs * p), jnp.ones(2, jnp.bfloat16)
    )
    np.testing.assert_allclose(op.factor(), [[1 + 1 / 300, 1.0]], rtol=1e-6)


def test_curvature_of_numpy_and_python_numbers_is_that_of_arrays():
    residual = lambda p: jnp.stack([p[0] * p[1], jnp.sin(p[0])])
    f = so.sum_of_squares(residual)
    wanted = so.dense(so.ggn(f, jnp.array([1.0, 2.0])), jnp.zeros(2))
    for params in (np.array([1.0, 2.0]), [1.0, 2.0], (np.float32(1), jnp.float32(2))):
        op = so.ggn(f, params)
        np.testing.assert_array_equal(so.dense(op, params), wanted)
        np.testing.assert_allclose(
            oracles.flat(op.mv(params)), wanted @ np.array([1.0, 2.0]), rtol=1e-6
        )


def test_a_model_without_parameters_has_an_empty_matrix():
    f = so.compose(so.squared_error(jnp.zeros(2)), lambda p: jnp.ones(2))
    assert so.dense(so.hessian(f, {}), {}).shape == (0, 0)


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", [so.ggn, so.fisher, so.empirical_fisher])
def test_a_plain_function_is_refused_with_what_to_pass(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__} needs .*compose\(loss, model\)"):
        kind(lambda p: jnp.sum(p), jnp.ones(2))


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"w": {"kernel": jnp.ones(2), "index": jnp.arange(2)}}, r"\['w'\]\['index'\] .* int32"),
        ({"w": {"kernel": jnp.ones(2, complex)}}, r"\['w'\]\['kernel'\] is complex"),
        ({"w": {"kernel": jnp.ones(2, bool)}}, r"\['w'\]\['kernel'\] has dtype bool"),
        ({"w": 3}, r"\['w'\] has dtype int32, which has no derivative"),
    ],
)
def test_parameters_that_are_not_real_are_named(params, sentence):
    f = so.compose(so.squared_error(jnp.zeros(2)), lambda p: jnp.ones(2))
    for kind in (so.ggn, so.hessian, so.fisher, so.empirical_fisher):
        with pytest.raises(TypeError, match=sentence):
            kind(f, params)
    with pytest.raises(TypeError, match=sentence):
        so.jacobian(f.model, params)


def test_a_vector_of_another_shape_or_tree_is_refused():
    f = so.compose(so.squared_error(jnp.zeros(2)), lambda p: p["a"])
    params = {"a": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"the vector v\['a'\] has shape \(3,\), but .* \(2,\)"):
        so.ggnvp(f, params, {"a": jnp.ones(3)})
    with pytest.raises(ValueError, match="must have the tree structure"):
        so.ggn(f, params).mv({"b": jnp.ones(2)})


@pytest.mark.parametrize("loss", [so.huber(1.0), so.cauchy(1.0), lambda z: jnp.sum(z**4)])
def test_a_loss_that_is_no_likelihood_has_no_fisher(loss):
    f = so.compose(loss, lambda p: p)
    for key in (None, jax.random.key(0)):
        with pytest.raises(TypeError, match="no targets to sample and no Fisher matrix"):
            so.fisher(f, jnp.ones(2), key)


def test_a_fisher_needs_at_least_one_sample():
    problem = problems.logistic()
    with pytest.raises(ValueError, match="samples=0"):
        so.fisher(problem.objective, problem.params, jax.random.key(0), samples=0)


def test_a_plain_loss_has_no_empirical_fisher():
    problem = problems.plain_loss()
    with pytest.raises(TypeError, match="terms for single examples are not known"):
        so.empirical_fisher(problem.objective, problem.params)


def bending_down(z):
    """A plain loss of a tree that couples its outputs and is not convex."""
    return jnp.sum(jnp.cos(z["a"])) + z["a"][0] * z["b"] ** 2 - 0.3 * z["b"] * jnp.sum(z["a"])


def test_a_plain_loss_that_is_not_convex_has_its_own_products_and_rows_of_its_upward_part(x64):
    params = problems.draw(42, 3, dtype=jnp.float64)
    a = problems.draw(43, 3, 3, dtype=jnp.float64)
    model = lambda p: {"a": a @ jnp.sin(p), "b": p[0] * p[1]}
    objective = so.compose(bending_down, model)
    m = np.asarray(oracles.hessian(bending_down, model(params)))
    w, v = np.linalg.eigh(m)
    assert w[0] < -0.1 and w[-1] > 0.1
    j = np.asarray(oracles.jacobian(model, params))
    slope = oracles.flat(jax.grad(bending_down)(model(params)))
    weights = (v.T @ slope) / (v.T @ oracles.flat(model(params)))
    upward = np.where(w > 0, w, np.maximum(weights, 0))
    reached = j.T @ (v * (upward > 0)) @ v.T @ slope  # the part that rows can explain
    upward = j.T @ (v * upward) @ v.T @ j

    @jax.jit
    def found(params):
        op = so.ggn(objective, params)
        rows, residual = op.factor(), op.residual()
        return so.dense(op, params), oracles.matrix(op.mv, params), rows.T @ rows, rows, residual

    dense, products, squared, rows, residual = found(params)
    for matrix, exact in ((dense, j.T @ m @ j), (products, j.T @ m @ j), (squared, upward)):
        assert oracles.relative_error(matrix, exact) < rounding()
    assert_close(rows.T @ residual, reached, np.linalg.cond(m))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["direct", "cg", "qr", "svd"])
def test_every_solver_goes_downhill_on_a_loss_that_is_not_convex(x64, name):
    objective = so.compose(bending_down, lambda p: {"a": p[:3], "b": p[3]})
    solver = getattr(so.solvers, name)()
    shown = {"direct": so.solvers.Stop.SHIFTED, "cg": so.solvers.Stop.NEGATIVE_CURVATURE}

    @jax.jit
    def step(params):
        model = so.Quadratic(jax.grad(objective)(params), so.ggn(objective, params))
        return solver.update(model, solver.init(params), jnp.asarray(1e-2))[0], model.grad

    for seed in range(5):
        params = problems.draw(seed, 4, dtype=jnp.float64)
        assert np.linalg.eigvalsh(jax.hessian(objective)(params))[0] < 0
        found, grad = step(params)
        assert found.direction @ grad < 0 and found.predicted < 0
        assert name not in shown or found.report.stopped == shown[name]


def test_outputs_without_a_common_leading_axis_have_no_examples():
    problem = problems.residual_tree()
    with pytest.raises(ValueError, match="counted along the leading axis"):
        so.empirical_fisher(problem.objective, problem.params)
    with pytest.raises(ValueError, match="counted along the leading axis"):
        so.fisher(problem.objective, problem.params, jax.random.key(0))


def test_a_plain_loss_of_many_outputs_has_products_but_no_factor():
    outputs = so.losses.GENERIC_ROOT_LIMIT + 1
    f = so.compose(lambda z: jnp.sum(z**2), lambda p: p * jnp.ones(outputs))
    op = so.ggn(f, jnp.ones(()))
    np.testing.assert_allclose(op.mv(jnp.ones(())), 2 * outputs)
    with pytest.raises(ValueError, match=f"{outputs} outputs .*limit {outputs - 1}"):
        op.factor()


@pytest.mark.parametrize("count", [64, 200])
def test_compiled_rows_and_matrix_of_a_softmax_are_those_of_its_logits(count):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(count, 16)), jnp.float32)
    loss = so.softmax_cross_entropy(jnp.asarray(rng.integers(0, 10, count), jnp.int32))
    params = {
        "intercept": jnp.zeros(10, jnp.float32),
        "weights": jnp.asarray(rng.normal(size=(16, 10)), jnp.float32),
    }
    logits = lambda p: inputs @ p["weights"] + p["intercept"][None]
    of = lambda p: so.ggn(so.compose(loss, logits), p)
    rows = np.asarray(jax.jit(lambda p: of(p).factor())(params), np.float64)
    matrix = jax.jit(lambda p: of(p).matrix(p))(params)
    p = np.asarray(jax.nn.softmax(logits(params)), np.float64)
    middle = np.eye(10)[None] * p[:, None] - p[:, None] * p[..., None]
    x = np.concatenate([np.ones((count, 1)), np.asarray(inputs, np.float64)], axis=1)
    exact = np.einsum("ni,nab,nj->iajb", x, middle, x).reshape(170, 170) / count
    scale = np.abs(exact).max()
    np.testing.assert_allclose(matrix, exact, atol=1e-4 * scale, rtol=0)
    np.testing.assert_allclose(rows.T @ rows, exact, atol=1e-4 * scale, rtol=0)
    columns = jnp.eye(170, dtype=jnp.float32)
    eye = {"intercept": columns[:, :10], "weights": columns[:, 10:].reshape(170, 16, 10)}
    images = jax.jit(lambda p: jax.vmap(of(p).mv)(eye))(params)
    images = np.concatenate([x.reshape(170, -1) for x in jax.tree.leaves(images)], axis=1)
    np.testing.assert_allclose(images, exact, atol=1e-4 * scale, rtol=0)
