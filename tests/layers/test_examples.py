"""The program of one example, from programs that people write for all of them at once."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so
from secondorder.layers import examples_of
from secondorder.operators import linearize

ROWS, FEW, WIDTH = 19, 17, 6


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, FURTHER = draw(0, ROWS, 2), draw(1, FEW, 2)
CLASSES = np.arange(ROWS) % 5
PARAMS = {
    "w": draw(2, 2, WIDTH),
    "b": draw(3, WIDTH),
    "v": draw(4, WIDTH, 1),
    "table": draw(5, 5, 2),
    "rate": np.float32(0.7),
}


def network(p, x, act=jnp.tanh):
    return (act(x @ p["w"] + p["b"]) @ p["v"])[..., 0]


def hessian_trace(p, x, act=jnp.tanh):
    return jnp.trace(jax.hessian(lambda x: network(p, x, act))(x))


def nested_tangents(p, x):
    def second(e):
        slope = lambda y: jax.jvp(lambda z: network(p, z), (y,), (e,))[1]
        return jax.jvp(slope, (x,), (e,))[1]

    return sum(second(e) for e in jnp.eye(2, dtype=x.dtype))


def gradient_of_sum(p, x):
    slope = lambda x: jax.grad(lambda x: network(p, x).sum())(x)
    return jax.grad(lambda x: slope(x)[:, 0].sum())(x)[:, 0] + slope(x)[:, 1]


def normalised(h):
    return (h - h.mean(1, keepdims=True)) / h.std(1, keepdims=True)


def hidden(p, x):
    return x @ p["w"] + p["b"]


def steep(x):
    """A function with a rule of its own, whose derivative is not that of its program."""
    return _steep(x, 3)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _steep(x, factor):
    return jnp.sin(x)


@_steep.defjvp
def _(factor, primals, tangents):
    return _steep(primals[0], factor), factor * _steep(primals[0], factor) * tangents[0]


def euler(p, x, steps=4):
    """The path of dx/dt = tanh(x W + b t) after each step."""

    def step(x, t):
        x = x + 0.1 * jnp.tanh(x @ p["w"][:, :2] + t * p["b"][:2])
        return x, x

    return jax.lax.scan(step, x, jnp.arange(steps, dtype=x.dtype))[1]


APART = {
    "a vmap": lambda p, x: jax.vmap(lambda x: network(p, x))(x),
    "a batch": network,
    "a vmap of Hessians": lambda p, x: jax.vmap(lambda x: hessian_trace(p, x) - jnp.sin(x[0]))(x),
    "a vmap of nested tangents": lambda p, x: jax.vmap(lambda x: nested_tangents(p, x))(x),
    "a batch by tangents": lambda p, x: jax.jvp(lambda x: network(p, x), (x,), (1 + 0 * x,))[1],
    "lax.map": lambda p, x: jax.lax.map(lambda x: hessian_trace(p, x), x),
    "a gradient of the sum": gradient_of_sum,
    "two terms": lambda p, x: jnp.concatenate([network(p, x), 3 * network(p, x[:-2])]),
    "weights": lambda p, x: network(p, x) * jnp.linspace(1, 2, ROWS, dtype=x.dtype),
    "relu": lambda p, x: network(p, x, jax.nn.relu),
    "curved softplus": lambda p, x: jax.vmap(lambda x: hessian_trace(p, x, jax.nn.softplus))(x),
    "gelu": lambda p, x: network(p, x, jax.nn.gelu),
    "a rule of its own": lambda p, x: network(p, x, steep),
    "embeddings": lambda p, x: p["table"][CLASSES] @ p["w"],
    "a tree": lambda p, x: {"a": network(p, x), "b": jnp.exp(hidden(p, x))},
    "layer normalisation": lambda p, x: normalised(hidden(p, x)) @ p["v"],
    "log softmax": lambda p, x: jax.nn.log_softmax(hidden(p, x)),
    "one output of each": lambda p, x: jnp.take_along_axis(
        hidden(p, x), CLASSES[:, None] % WIDTH, 1
    ),
    "jit": lambda p, x: jax.jit(jax.vmap(network, (None, 0)))(p, x),
    "checkpoint": lambda p, x: jax.checkpoint(lambda p: network(p, x))(p),
    "differences of neighbours": lambda p, x: jnp.diff(network(p, x)),
    "a stack": lambda p, x: jnp.stack([network(p, x), network(p, x) ** 2], axis=1),
    "a branch": lambda p, x: jax.vmap(
        lambda x: jax.lax.cond(x[0] > 0, lambda: network(p, x), lambda: 2 * network(p, x))
    )(x),
    "a choice": lambda p, x: jnp.where(x[:, 0] > 0, network(p, x), jnp.sin(p["rate"] * x[:, 0])),
    "a grid inside": lambda p, x: jnp.exp(-p["rate"] * jnp.arange(ROWS) / ROWS) * p["b"][0],
    "transposed": lambda p, x: (p["w"].T @ x.T).T,
    "einsum": lambda p, x: jnp.einsum("ni,ij->nj", x, p["w"]),
    "norms": lambda p, x: jnp.linalg.norm(hidden(p, x), axis=1),
    "log of sums": lambda p, x: jax.scipy.special.logsumexp(hidden(p, x), axis=1),
    "complex": lambda p, x: jnp.exp(1j * network(p, x)),
    "a convolution": lambda p, x: jax.lax.conv_general_dilated(
        x[:, :1, None, None] * jnp.ones((ROWS, 1, 5, 5), x.dtype),
        p["w"][:, None, :, None],
        (1, 1),
        "SAME",
    ),
    "an integration in time": lambda p, x: euler(p, x)[-1],
    "a path": lambda p, x: jnp.moveaxis(euler(p, x), 0, 1),
    "a vmap of paths": lambda p, x: jax.vmap(lambda x: euler(p, x))(x),
    "a loop": lambda p, x: jax.lax.fori_loop(0, 3, lambda i, y: jnp.sin(y) * p["rate"], x),
    "a recursion along each example": lambda p, x: jax.vmap(
        lambda x: jax.lax.scan(lambda c, y: (jnp.tanh(p["rate"] * c + y), None), x[0], x)[0]
    )(x),
    "a polynomial": lambda p, x: jnp.polyval(p["b"], x[:, 0]),
    "cumulative sums": lambda p, x: jnp.cumsum(hidden(p, x)[:, ::-1], axis=1),
    "small systems": lambda p, x: jax.vmap(
        lambda x: jnp.linalg.cholesky(jnp.eye(2, dtype=x.dtype) + jnp.outer(x, x) * p["rate"] ** 2)
    )(x),
}

TOGETHER = {
    "batch normalisation": lambda p, x: jnp.tile(network(p, x) - network(p, x).mean(), 9),
    "sorted": lambda p, x: jnp.sort(network(p, x)),
    "the parameters": lambda p, x: jnp.tile(p["b"], 4),
    "a recursion": lambda p, x: jax.lax.scan(lambda c, x: (c + network(p, x), c), 0.0, x)[1],
    "a matrix of the parameters": lambda p, x: (
        jnp.linalg.inv(jnp.eye(ROWS, dtype=x.dtype) + p["rate"] ** 2 * (x @ x.T)) @ network(p, x)
    ),
}


def matrix(jacobian):
    return jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in jax.tree.leaves(jacobian)])


def in_precision(dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), (PARAMS, X))


def brute_force(fn, params):
    """By `jax.jacfwd`, of complex outputs their parts."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def outputs(flat):
        leaves = jax.tree.leaves(fn(unravel(flat)))
        parts = [y for x in leaves for y in ((x.real, x.imag) if jnp.iscomplexobj(x) else (x,))]
        return jnp.concatenate([jnp.ravel(x) for x in parts])

    return jax.jacfwd(outputs)(flat)


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", APART)
def test_rows_of_examples_apart_are_those_of_the_whole_jacobian(name, x64):
    params, x = in_precision("float64")
    fn = lambda p: APART[name](p, x)
    assert examples_of(lambda p: _real(fn(p)), params) is not None
    found, expected = jax.jit(lambda p: (matrix(linearize(fn, p).dense()), brute_force(fn, p)))(
        params
    )
    assert_close(found, expected, condition=10)


def _real(outputs):
    return jax.tree.map(lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else x, outputs)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", TOGETHER)
def test_outputs_that_mix_examples_are_differentiated_whole(name, x64):
    params, x = in_precision("float64")
    fn = lambda p: TOGETHER[name](p, x)
    assert examples_of(fn, params) is None
    found, expected = jax.jit(lambda p: (matrix(linearize(fn, p).dense()), brute_force(fn, p)))(
        params
    )
    assert_close(found, expected, condition=100)


def test_concatenated_terms_are_pieces_with_data_of_their_own(x64):
    params, x = in_precision("float64")
    both = lambda p: jnp.concatenate([hidden(p, x), 2 * hidden(p, FURTHER)])
    first, second = examples_of(both, params)
    assert {e.shape[0] for e in first.examples} == {ROWS}
    assert {e.shape[0] for e in second.examples} == {FEW}


def test_many_terms_of_few_rows_stay_together():
    params, x = in_precision("float32")
    many = lambda p: jnp.concatenate([network(p, x[i : i + 2]) for i in range(9)])
    assert examples_of(many, params) is None


FLAGS = {
    "strict dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "no promotion of ranks": lambda: jax.numpy_rank_promotion("raise"),
    "debug_nans": lambda: jax.debug_nans(True),
    "checking_leaks": jax.checking_leaks,
    "disable_jit": jax.disable_jit,
    "x64 with float32": lambda: jax.enable_x64(True),
    "nothing": contextlib.nullcontext,
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("flag", FLAGS)
def test_examples_are_apart_under_each_debugging_flag(flag):
    params, x = in_precision("float32")
    fn = lambda p: jax.vmap(lambda x: jax.nn.relu(x @ p["w"]) @ p["v"])(x)
    expected = brute_force(fn, params)
    with FLAGS[flag]():
        assert examples_of(fn, params) is not None
        assert_close(matrix(linearize(fn, params).dense()), expected, condition=10)


def test_data_may_be_traced_batched_and_differentiated(x64):
    params, x = in_precision("float64")

    def norm(scale, x):
        jacobian = matrix(linearize(lambda p: APART["relu"](p, scale * x), params).dense())
        return jnp.sum(jacobian**2)

    def by_force(scale, x):
        return jnp.sum(brute_force(lambda p: APART["relu"](p, scale * x), params) ** 2)

    scales = jnp.array([0.5, 2.0])
    both = lambda of: jax.jit(jax.vmap(jax.value_and_grad(of), (0, None)))(scales, x)
    for found, expected in zip(both(norm), both(by_force), strict=True):
        assert_close(found, expected, condition=100)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["a vmap of Hessians", "a vmap of nested tangents", "lax.map"])
def test_a_residual_for_all_examples_costs_what_it_costs_by_example(name):
    model = {"a vmap of nested tangents": nested_tangents}.get(name, hessian_trace)
    params, x = in_precision("float32")
    known = so.per_example(so.squared_error(jnp.zeros(ROWS)), model, x).model

    def flops(fn):
        program = jax.jit(lambda p: linearize(fn, p).dense()).lower(params).compile()
        return program.cost_analysis()["flops"]

    assert flops(lambda p: APART[name](p, x)) < 2 * flops(known)
