"""The algebra of operators, and what every operator is: linear and symmetric."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import problems
import pytest
from tolerances import rounding

import secondorder as so
from secondorder.operators import Diagonal, Function, Identity, Operator, Preconditioned

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
ENTRIES = {"a": jnp.array([3.0, 4.0]), "b": jnp.array(5.0)}
V = {"a": jnp.array([1.0, 10.0]), "b": jnp.array(-1.0)}


def value(p):
    return jnp.sum(p["a"] ** 3) * p["b"] + jnp.prod(p["a"]) * p["b"] ** 2


HESSIAN = np.asarray(oracles.hessian(value, PARAMS))


def agrees(op, matrix):
    """Whether the operator's products and its matrix are both this matrix."""
    dense, product = jax.jit(lambda: (so.dense(op, PARAMS), op.mv(V)))()
    np.testing.assert_allclose(dense, matrix, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        oracles.flat(product), matrix @ oracles.flat(V), rtol=1e-5, atol=1e-5
    )


def test_identity_diagonal_and_function_are_their_matrices():
    agrees(Identity(), np.eye(3))
    agrees(Diagonal(ENTRIES), np.diag([3.0, 4.0, 5.0]))
    double = Function(lambda v: jax.tree.map(lambda x: 2 * x, v), PARAMS)
    agrees(double, 2 * np.eye(3))


def test_sums_multiples_and_damping_are_those_of_the_matrices():
    h, eye = so.hessian(value, PARAMS), np.eye(3)
    agrees(h + Diagonal(ENTRIES), HESSIAN + np.diag([3.0, 4.0, 5.0]))
    agrees(2.5 * h, 2.5 * HESSIAN)
    agrees(h.damped(0.3), HESSIAN + 0.3 * eye)
    agrees(-1 * (h + 2 * Identity()).damped(1.0) * 0.5, -0.5 * (HESSIAN + 3 * eye))


@pytest.mark.parametrize(
    "two",
    [2, 2.0, np.float64(2), np.array(2.0), jnp.array(2.0), jnp.bfloat16(2)],
    ids=["int", "float", "numpy scalar", "numpy array", "jax array", "jax bfloat16"],
)
def test_any_scalar_multiplies_from_both_sides(two):
    op = Diagonal(ENTRIES)
    for scaled in (two * op, op * two):
        assert isinstance(scaled, Operator)
        agrees(scaled, np.diag([6.0, 8.0, 10.0]))
        product = jax.eval_shape(scaled.mv, V)
        assert {x.dtype for x in jax.tree.leaves(product)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    "other",
    [jnp.ones(2), np.ones(2), "2", None, Identity()],
    ids=["jax array", "numpy array", "text", "none", "operator"],
)
def test_only_a_scalar_multiplies(other):
    for product in (lambda: other * Diagonal(ENTRIES), lambda: Diagonal(ENTRIES) * other):
        with pytest.raises(TypeError):
            product()


def test_only_an_operator_is_added():
    with pytest.raises(TypeError):
        Diagonal(ENTRIES) + 1.0


def test_identity_and_diagonal_solve_their_damped_systems():
    for op in (Identity(), Diagonal(ENTRIES)):
        x = jax.jit(lambda c, op=op: op.solve(V, c))(0.5)
        again = oracles.flat(op.damped(0.5).mv(x))
        np.testing.assert_allclose(again, oracles.flat(V), rtol=rounding(dtype="float32"))


def test_a_diagonal_solve_goes_by_magnitude_and_never_divides_by_nothing():
    entries = {"a": jnp.array([-4.0, 0.0]), "b": jnp.array(2.0)}
    x = Diagonal(entries).solve(V, 0.0)
    assert x["a"][0] == V["a"][0] / 4 and x["b"] == V["b"] / 2
    assert jnp.isfinite(x["a"][1]) and x["a"][1] > 1e5
    assert jnp.all(jnp.isfinite(Diagonal(so.tree.zeros_like(V)).solve(V, 0.0)["a"]))


def test_damping_may_be_traced():
    matrix = jax.jit(lambda c: so.dense(so.hessian(value, PARAMS).damped(c), PARAMS))(0.7)
    np.testing.assert_allclose(matrix, HESSIAN + 0.7 * np.eye(3), rtol=1e-5)


@pytest.mark.parametrize(
    "op", [Function(lambda v: v, PARAMS), Diagonal(ENTRIES)], ids=["function", "diagonal"]
)
def test_a_vector_that_would_broadcast_is_refused(op):
    with pytest.raises(ValueError, match=r"the vector v\['b'\] has shape \(3,\)"):
        op.mv({"a": jnp.ones(2), "b": jnp.ones(3)})
    with pytest.raises(ValueError, match="must have the tree structure"):
        op.mv({"a": jnp.ones(2)})


def test_a_product_comes_back_in_the_dtype_of_its_vector():
    h = so.hessian(value, jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS))
    for op in (h, 2.0 * h, h + h, h.damped(jnp.float32(0.1)), Diagonal(ENTRIES), Identity()):
        for dtype in (jnp.bfloat16, jnp.float32):
            v = jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), V)
            product = jax.eval_shape(op.mv, v)
            assert {x.dtype for x in jax.tree.leaves(product)} == {jnp.dtype(dtype)}


def test_an_operator_without_a_product_says_so():
    class Empty(Operator):
        pass

    with pytest.raises(TypeError, match="Empty defines no product"):
        Empty().mv(V)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda op: op.solve(V, 0.1), "needs the inverse.* a Function has none.*direct"),
        (lambda op: op.rows(), r"needs the rows.* is a Function. Use exact\(ggn\), or"),
        (lambda op: op.gauss_newton(), r"needs the rows.* is a Function.*not chunked"),
        (lambda op: op.layer_blocks(), "needs the blocks of layers.* is a Function"),
    ],
)
def test_what_an_operator_does_not_have_is_refused_in_a_sentence(ask, sentence):
    hessian = Function(lambda v: v, V)
    with pytest.raises(TypeError, match=sentence):
        ask(hessian)
    assert not hessian.bends(2)


def test_an_approximation_gives_inverse_and_blocks_and_nothing_else():
    op = Preconditioned(Identity(), Function(lambda v: v, V))
    with pytest.raises(TypeError, match="Function has none"):
        op.solve(V, 0.1)
    with pytest.raises(TypeError, match="the curvature is a Function"):
        op.layer_blocks()
    with pytest.raises(TypeError, match="the curvature is a Preconditioned"):
        op.rows()


# -------------------------------------------------------------- what the definition alone promises


PROBLEM = problems.sequences()
START, UNRAVEL = jax.flatten_util.ravel_pytree(PROBLEM.params)


def operators_at(params):
    f = PROBLEM.objective
    return {
        "hessian": so.hessian(f, params),
        "ggn": so.ggn(f, params),
        "empirical_fisher": so.empirical_fisher(f, params),
        "fisher": so.fisher(f, params, jax.random.key(0), samples=2),
        "sum": 0.5 * so.hessian(f, params) + so.ggn(f, params).damped(0.25),
    }


@jax.jit
def products(x, *vectors):
    ops = operators_at(UNRAVEL(x))
    flat = lambda op, v: jax.flatten_util.ravel_pytree(op.mv(UNRAVEL(v)))[0]
    return {name: [flat(op, v) for v in vectors] for name, op in ops.items()}


numbers = hypothesis.extra.numpy.arrays(
    np.float32, START.size, elements=st.floats(-2, 2, width=32, allow_subnormal=False)
)


@hypothesis.given(numbers, numbers, numbers)
def test_products_are_linear_symmetric_and_where_promised_never_negative(x, u, v):
    scale = 1 + np.linalg.norm(u) + np.linalg.norm(v)
    for name, (bu, bv, bw) in products(x, u, v, 2 * u - v).items():
        size = 1e-5 * scale * (1 + np.linalg.norm(bu) + np.linalg.norm(bv))
        assert np.linalg.norm(bw - (2 * bu - bv)) <= size, name
        assert abs(u @ bv - v @ bu) <= size, name
        if name in ("ggn", "fisher", "empirical_fisher"):
            assert u @ bu >= -size, name
