"""A chunked objective against the same batch in one piece: its numbers, and its memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.curvature import fisher_sample, ggn_components, ggn_sample, layerwise, per_example

RNG = np.random.default_rng(0)
COUNT = 12
BATCH = {
    "x": RNG.normal(size=(COUNT, 3)),
    "y": RNG.normal(size=(COUNT, 2)),
    "label": RNG.integers(0, 2, COUNT),
    "mask": np.arange(COUNT) < 10,
}
PARAMS = {
    "b1": RNG.normal(size=4),
    "b2": np.ones(2),
    "w1": RNG.normal(size=(3, 4)),
    "w2": RNG.normal(size=(4, 2)),
}
SINGLE_BATCH, SINGLE_PARAMS = (
    jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, data)
    for data in (BATCH, PARAMS)
)


def outputs(p, x):
    return jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


def of(loss_of):
    return lambda b: so.compose(loss_of(b), lambda p: outputs(p, b["x"]))


def with_penalty(b):
    terms = so.losses.total(so.squared_error(b["y"]), so.losses.half_sum_of_squares())
    return so.compose(terms, lambda p: (outputs(p, b["x"]), jnp.sqrt(0.1) * p["w1"]))


def unweighed(b):  # the last two examples have labels of zero mass
    return so.softmax_cross_entropy(jax.nn.one_hot(b["label"], 2) * b["mask"][:, None])


OBJECTIVES = {
    "squared error": (of(lambda b: so.squared_error(b["y"])), True),
    "integer labels": (of(lambda b: so.softmax_cross_entropy(b["label"])), True),
    "padding without a label": (of(unweighed), True),
    "a function of the outputs": (of(lambda b: lambda z: jnp.mean((z - b["y"]) ** 4)), True),
    "a penalty": (with_penalty, True),
    "one example at a time": (
        lambda b: so.per_example(so.squared_error(b["y"]), outputs, b["x"]),
        True,
    ),
    "a sum": (of(lambda b: lambda z: jnp.sum((z - b["y"]) ** 2)), False),
    "residuals": (lambda b: so.sum_of_squares(lambda p: outputs(p, b["x"]) - b["y"]), False),
    "robust": (lambda b: so.compose(so.huber(0.5), lambda p: outputs(p, b["x"]) - b["y"]), False),
}
SQUARED = OBJECTIVES["squared error"][0]
everything = pytest.mark.parametrize("name", OBJECTIVES)


def pair(name="squared error", chunk_size=3):
    """The objective of the whole batch, and in chunks."""
    objective_of, mean = OBJECTIVES[name]
    return objective_of(BATCH), so.chunked(objective_of, BATCH, chunk_size, mean=mean)


def matrix_of(operator_at):
    """The matrix of an operator at the parameters, in one program."""
    return np.asarray(jax.jit(lambda p: so.dense(operator_at(p), p))(PARAMS))


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(partial(assert_close, condition=COUNT), found, expected)


def assert_solved_alike(one, other):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), one, other)


@pytest.mark.quick(2)
@everything
@pytest.mark.parametrize("chunk_size", [1, 4, 5])
def test_value_and_derivatives_are_those_of_the_batch_in_one_piece(name, chunk_size, x64):
    def found(f):
        along = lambda p: (jax.jvp(f, (p,), (p,)), so.hvp(f, p, p))
        return jax.jit(lambda p: (jax.value_and_grad(f)(p), along(p)))(PARAMS)

    whole, chunks = pair(name, chunk_size)
    assert_equal(found(chunks), found(whole))


@pytest.mark.quick(1)
@everything
@pytest.mark.parametrize("operator", [so.hessian, so.ggn])
def test_curvature_is_that_of_the_batch_in_one_piece(name, operator, x64):
    v = jax.tree.map(np.ones_like, PARAMS)

    def found(f):
        op = lambda p: operator(f, p)
        return jax.jit(lambda p, v: (so.dense(op(p), p), op(p).mv(v), op(p).gram(v, p)))(PARAMS, v)

    whole, chunks = map(found, pair(name, 5))
    assert_equal(chunks, whole)


# Sizes that leave a rest: two, all but one, one; and a chunk of more than all.
@pytest.mark.quick(2)
@pytest.mark.parametrize("chunk_size", [5, 11, 7, 100])
@pytest.mark.parametrize("name", ["squared error", "residuals"])
def test_a_rest_is_weighed_by_its_share_of_the_examples(name, chunk_size, x64):
    direct = so.scale_by_curvature(so.exact(so.ggn), so.solvers.sample_space(), so.trust.fixed(0.1))

    def found(f):
        value, grad = jax.value_and_grad(f)(PARAMS)
        step, _ = direct.update(grad, direct.init(PARAMS), PARAMS, value=value, value_fn=f)
        trace = so.trace(so.hessian(f, PARAMS), PARAMS, jax.random.key(0), samples=2)
        return value, grad, so.ggnvp(f, PARAMS, PARAMS), trace.value, step

    whole, chunks = pair(name, chunk_size)
    one, other = (jax.jit(lambda f=f: found(f))() for f in (chunks, whole))
    assert_equal(one[:4], other[:4])
    assert_solved_alike(one[4], other[4])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squared error", "integer labels"])
def test_fisher_matrices_are_those_of_the_batch_in_one_piece(name, x64):
    for operator in (so.fisher, so.empirical_fisher):
        whole, chunks = (matrix_of(partial(operator, f)) for f in pair(name))
        assert_equal(chunks, whole)
    # Sampled, each chunk draws by a key of its own.
    objective_of, key = OBJECTIVES[name][0], jax.random.key(1)
    chunks = pair(name)[1]
    sampled = matrix_of(lambda p: so.fisher(chunks, p, key, samples=2))
    parts = [jax.tree.map(lambda x, k=k: x[k::4], BATCH) for k in range(4)]
    expected = [
        matrix_of(lambda p, k=k, b=b: so.fisher(objective_of(b), p, jax.random.fold_in(key, k), 2))
        for k, b in enumerate(parts)
    ]
    assert_equal(sampled, np.mean(expected, axis=0))


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", ["integer labels", "residuals"])
@pytest.mark.parametrize("estimate", [fisher_sample, ggn_sample, per_example])
def test_samples_have_the_curvature_of_the_whole_batch_in_expectation(name, estimate, x64):
    whole, chunks = pair(name, 5)
    operator = so.empirical_fisher if estimate is per_example else so.ggn
    draw = lambda i: estimate().draw(PARAMS, PARAMS, chunks, jax.random.key(i)).left
    found = jax.jit(lambda: jax.lax.map(draw, jnp.arange(2000), batch_size=100))()
    rows = np.concatenate([x.reshape(2000, -1) for x in jax.tree.leaves(found)], axis=1)
    squares = rows[:, :, None] * rows[:, None, :]
    error = np.std(squares, axis=0) / np.sqrt(2000)
    expected = matrix_of(partial(operator, whole))
    noise = rounding(norm=np.max(np.abs(expected)))
    assert np.all(np.abs(np.mean(squares, axis=0) - expected) <= 5.5 * error + noise)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["integer labels", "residuals"])
@pytest.mark.parametrize("eigen", [False, True])
def test_layer_statistics_are_those_of_the_batch_in_one_piece(name, eigen, x64):
    whole, chunks = pair(name, 5)
    curvature = layerwise(chunks, ggn_components(), eigen=eigen)
    start = curvature.init(PARAMS)
    one, other = (
        jax.jit(lambda p, state, f=f: curvature.update(p, state, p, f, 0.1)[1])(PARAMS, start)
        for f in (chunks, whole)
    )
    assert_equal(one.averages, other.averages)
    so.layer_table(chunks, PARAMS, strict=True)  # reads the first chunk


def test_a_leaf_in_no_layer_has_its_grams_in_expectation(x64):
    params = {"w": RNG.normal(size=(3, 2))}
    of_odd = lambda b: so.compose(so.squared_error(b["y"]), lambda p: b["x"] @ jnp.sin(p["w"]))
    chunks = so.chunked(of_odd, BATCH, 3)
    curvature = layerwise(chunks, ggn_sample())
    start = curvature.init(params)

    def gram(i):
        state = curvature.update(params, start._replace(count=i), params, chunks, 0.1)[1]
        return state.averages[0].factors[1][0]

    found = jax.jit(lambda: jax.lax.map(gram, jnp.arange(1000), batch_size=100))()
    exact = so.dense(so.ggn(of_odd(BATCH), params), params).reshape(3, 2, 3, 2)
    error = np.std(found, axis=0) / np.sqrt(1000)
    assert np.all(np.abs(np.mean(found, axis=0) - np.einsum("iaib->ab", exact)) <= 5 * error)


@pytest.mark.slow
def test_deterministic_methods_take_the_same_steps(x64):
    whole, chunks = pair()
    exact = so.scale_by_curvature(so.exact(so.ggn), so.solvers.direct(), so.trust.damping())
    truncated = so.hessian_free(max_cg_steps=6)  # rounding is amplified from product to product
    for optimizer in (so.newton_cg(), truncated, exact):
        one, other = (so.minimize(f, PARAMS, optimizer, max_steps=6) for f in (chunks, whole))
        assert_solved_alike(one.params, other.params)
        assert int(one.status) == int(other.status)


@pytest.mark.slow
@pytest.mark.parametrize("make", [so.kfac, so.ekfac])
def test_layerwise_methods_converge_by_chunks(make, x64):
    chunks = pair("integer labels")[1]
    start = chunks(PARAMS)
    solution = so.minimize(chunks, PARAMS, make(example=chunks), max_steps=30)
    assert solution.value < 0.1 * start


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["kfac", "ekfac", "sophia", "newton_cg", "hessian_free"])
def test_a_training_step_by_chunks_compiles_once_and_descends(name):
    objective_of = OBJECTIVES["integer labels"][0]
    example = objective_of(SINGLE_BATCH)  # of another size than the chunks
    opt = getattr(so, name)(**({"example": example} if "kfac" in name else {}))

    @jax.jit
    def step(params, state, batch):
        f = so.chunked(objective_of, batch, 4)
        value, grad = jax.value_and_grad(f)(params)
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=f)
        return optax.apply_updates(params, updates), state, value

    params = jax.tree.map(jnp.asarray, SINGLE_PARAMS)
    state, values = opt.init(params), []
    for _ in range(6):
        params, state, value = step(params, state, SINGLE_BATCH)
        values.append(float(value))
    assert step._cache_size() == 1
    assert values[-1] < values[0] and not so.diagnostics(state)["rejections"] == 6


@pytest.mark.slow
def test_parameters_may_be_held_and_bounded(x64):
    whole, chunks = pair()
    held = {"b1": True, "b2": True, "w1": False, "w2": True}
    restricted = [so.restrict(f, PARAMS, held) for f in (chunks, whole)]
    assert_equal(*(jax.grad(f)(PARAMS) for f in restricted))
    assert np.all(jax.grad(restricted[0])(PARAMS)["w1"] == 0)
    assert_equal(*(so.ggnvp(f, PARAMS, PARAMS) for f in restricted))
    ends = [
        so.minimize(f, PARAMS, so.hessian_free(max_cg_steps=6), bounds=(-1.0, 1.0), max_steps=8)
        for f in (chunks, whole)
    ]
    assert_solved_alike(ends[0].params, ends[1].params)
    assert max(np.max(np.abs(x)) for x in jax.tree.leaves(ends[0].params)) == 1


@pytest.mark.slow
def test_a_solution_is_differentiable_in_the_batch_and_in_what_chunks_close_over(x64):
    def solution(y, strength, chunk_size):
        def objective_of(b):
            terms = so.losses.total(so.squared_error(b["y"]), so.losses.half_sum_of_squares())
            return so.compose(terms, lambda w: (b["x"] @ w, jnp.sqrt(strength) * w))

        batch = {"x": BATCH["x"], "y": y}
        f = so.chunked(objective_of, batch, chunk_size) if chunk_size else objective_of(batch)
        return so.minimize(f, jnp.zeros((3, 2)), so.newton_cg(), tol=1e-10).params

    slope = jax.jacrev(solution, argnums=(0, 1))
    found = [slope(BATCH["y"], 0.3, size) for size in (5, None)]
    jax.tree.map(partial(assert_close, condition=COUNT, c=1e6), *found)  # solved to 1e-10
    assert np.max(np.abs(found[1][1])) > 1e-3


def test_low_precision_is_summed_in_float32():
    f = so.chunked(lambda b: lambda p: jnp.sum(b * p), jnp.ones(4096, jnp.bfloat16), 1, mean=False)
    assert f(jnp.ones((), jnp.bfloat16)) == 4096
    g = so.chunked(SQUARED, SINGLE_BATCH, 3)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), SINGLE_PARAMS)
    assert {x.dtype.name for x in jax.tree.leaves(jax.grad(g)(params))} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(so.ggnvp(g, params, params))} == {"bfloat16"}


# ------------------------------------------------------------------------------------------ memory

WIDE = {"in": jnp.ones((4, 64)), "out": jnp.ones((64, 2))}


def wide(b):
    hidden = lambda p: jnp.tanh(b["x"] @ p["in"])
    return so.compose(so.softmax_cross_entropy(b["y"]), lambda p: jnp.sin(hidden(p)) @ p["out"])


def stepped(optimizer):
    def step(f, params):
        value, grad = jax.value_and_grad(f)(params)
        state = optimizer.init(params)
        return optimizer.update(grad, state, params, value=value, grad=grad, value_fn=f)

    return step


def batch_of(count):
    return {"x": jnp.ones((count, 4)), "y": jnp.zeros(count, int)}


JOBS = {
    "gradient": lambda f, p: jax.value_and_grad(f)(p),
    "Gauss-Newton products in a loop": lambda f, p: jax.lax.fori_loop(
        0, 5, lambda i, v: so.ggn(f, p).mv(v), p
    ),
    "Hessian products in a loop": lambda f, p: jax.lax.fori_loop(
        0, 5, lambda i, v: so.hessian(f, p).mv(v), p
    ),
    "newton_cg": stepped(so.newton_cg()),
    "hessian_free": stepped(so.hessian_free()),
    "sophia": stepped(so.sophia()),
    "sophia of the Hessian": stepped(so.sophia(estimator=so.curvature.hutchinson())),
    "kfac": stepped(so.kfac(example=wide(batch_of(4)))),
    "ekfac": stepped(so.ekfac(example=wide(batch_of(4)))),
}


def temporary(job, objective_of, batch, params, chunk_size=None):
    def run(batch, params):
        whole = objective_of(batch) if chunk_size is None else None
        return job(whole or so.chunked(objective_of, batch, chunk_size), params)

    return jax.jit(run).lower(batch, params).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", JOBS)
def test_ten_times_the_chunks_take_no_more_memory(name):
    chunk, few, many = 128, 3, 30
    bytes_of = lambda count, size=None: temporary(JOBS[name], wide, batch_of(count), WIDE, size)
    short, long = (bytes_of(chunk * k, chunk) for k in (few, many))
    assert long < 1.1 * short
    assert bytes_of(chunk * many) > 4 * long  # in one piece


VOCABULARY = 50_000
TABLE = {"embedding": jnp.ones((8, 4)), "head": jnp.ones((4, VOCABULARY))}


def language_model(b):
    states = lambda p: jnp.tanh(p["embedding"][b["token"]])
    return so.compose(so.softmax_cross_entropy(b["next"]), lambda p: states(p) @ p["head"])


def tokens(count):
    return {"token": jnp.zeros((count, 2), int), "next": jnp.zeros((count, 2), int)}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["gradient", "Gauss-Newton products in a loop", "sophia"])
def test_the_logits_of_a_large_vocabulary_exist_for_one_chunk_at_a_time(name):
    logits = tokens(32)["token"].size * VOCABULARY * 4
    params = 12 * 4 * VOCABULARY * 4  # a few vectors of the parameters
    chunked = temporary(JOBS[name], language_model, tokens(32), TABLE, chunk_size=1)
    assert chunked < params + logits / 4 < 2 * logits
    assert temporary(JOBS[name], language_model, tokens(32), TABLE) > logits


@pytest.mark.parametrize("estimate", [fisher_sample, ggn_sample])
def test_no_matrix_of_classes_by_classes_is_formed(estimate):
    def draw(f, p):
        return estimate().draw(p, p, f, jax.random.key(0)).left, so.ggnvp(f, p, p)

    used = temporary(draw, language_model, tokens(1), TABLE)
    assert used < 40 * VOCABULARY * 4 < 0.001 * VOCABULARY**2 * 4


# ------------------------------------------------------------------------------------------ errors


def test_what_cannot_be_cut_into_chunks_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="needs objective_of to be a function, but got 3"):
        so.chunked(3, BATCH, 2)
    with pytest.raises(ValueError, match=r"one common leading axis.*\(12, 3\), \(\)"):
        so.chunked(SQUARED, [BATCH["x"], 1.0], 2)
    for size in (0, -3, 2.5, "4"):
        with pytest.raises((TypeError, ValueError), match="chunk_size=.*; pass a positive integer"):
            so.chunked(SQUARED, BATCH, size)
    with pytest.raises(ValueError, match="without examples"):
        so.chunked(SQUARED, {"x": np.ones((0, 3))}, 2)


@pytest.mark.parametrize(("name", "right"), [("residuals", False), ("integer labels", True)])
def test_a_loss_that_is_known_to_be_a_sum_is_not_averaged_nor_a_mean_summed(name, right):
    f = so.chunked(OBJECTIVES[name][0], BATCH, 3, mean=not right)
    with pytest.raises(ValueError, match=f"got mean={not right}.*Pass mean={right}"):
        f(PARAMS)


def test_methods_that_need_all_rows_at_once_say_what_to_take_instead():
    chunks = so.chunked(SQUARED, SINGLE_BATCH, 3)
    for optimizer in (so.levenberg_marquardt(), so.gauss_newton(), so.hybrid_newton()):
        with pytest.raises(TypeError, match="chunked"):
            so.minimize(chunks, SINGLE_PARAMS, optimizer)
    with pytest.raises(TypeError, match="ggn needs the split"):
        plain = so.chunked(lambda b: lambda p: jnp.sum(p["b1"]), SINGLE_BATCH, 3)
        so.ggnvp(plain, SINGLE_PARAMS, SINGLE_PARAMS)
