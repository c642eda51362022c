"""Second derivatives as products, against dense ones and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import problems
import pytest
from tolerances import rounding

import secondorder as so

PROBLEMS = problems.SPLIT | problems.PLAIN


@functools.cache
def expected(name):
    with jax.enable_x64(True):
        problem = PROBLEMS[name](jnp.float64)
        value = problem.objective
        if problem.term is not None:  # the loss written out, not the library's
            value = lambda p: oracles.loss_of(problem)(problem.objective.model(p))
        return np.asarray(jax.jit(lambda p: oracles.hessian(value, p))(problem.params))


@pytest.mark.quick(2)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_hessian_is_the_one_by_brute_force(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        problem = PROBLEMS[name](dtype)

        @jax.jit
        def matrices(params):
            op = so.hessian(problem.objective, params)
            product = lambda v: so.hvp(problem.objective, params, v)
            found = [so.dense(op, params)]
            return found + ([oracles.matrix(product, params)] if dtype == "float64" else [])

        for matrix in matrices(problem.params):
            assert matrix.dtype == dtype
            assert oracles.relative_error(matrix, expected(name)) < rounding(10, dtype=dtype)


def test_the_hessian_is_the_slope_of_the_gradient(x64):
    problem = problems.logistic(jnp.float64)
    slope = oracles.finite_differences(jax.grad(problem.objective), problem.params)
    found = jax.jit(lambda p: so.dense(so.hessian(problem.objective, p), p))(problem.params)
    assert oracles.relative_error(found, slope) < 1e-8


def test_a_saddle_has_both_signs():
    problem = problems.saddle()
    matrix = so.dense(so.hessian(problem.objective, problem.params), problem.params)
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix), [-1 + 3 * 0.1**2, 1], rtol=1e-5)


def test_the_hessian_runs_the_users_function_once():
    calls = []

    def value(p):
        calls.append(p)
        return jnp.sum(p**4)

    p = jnp.arange(3.0)
    op = so.hessian(value, p)
    for _ in range(3):
        op.mv(p)
    jax.jit(lambda v: jax.lax.fori_loop(0, 5, lambda i, v: op.mv(v), v))(p)
    so.dense(op, p)
    assert len(calls) == 1


def test_products_differentiate_and_batch():
    value = lambda p: jnp.sum(p**4)
    p, v = jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0])
    third = jax.grad(lambda p: so.hvp(value, p, v) @ v)(p)
    np.testing.assert_allclose(third, 24 * p * v**2, rtol=1e-5)
    batch = jax.vmap(lambda p: so.hvp(value, p, v))(jnp.stack([p, 2 * p]))
    np.testing.assert_allclose(batch, 12 * jnp.stack([p, 2 * p]) ** 2 * v, rtol=1e-5)


def test_a_product_with_bfloat16_parameters_answers_in_the_vectors_dtype():
    p = jnp.array([1.0, 2.0], jnp.bfloat16)
    for dtype in (jnp.bfloat16, jnp.float32):
        product = so.hvp(lambda p: jnp.sum(p**3), p, jnp.ones(2, dtype))
        assert product.dtype == dtype
        np.testing.assert_allclose(product.astype(jnp.float32), [6, 12])


def test_integer_parameters_and_mismatched_vectors_are_named():
    with pytest.raises(TypeError, match=r"params\['n'\] has dtype int32"):
        so.hvp(lambda p: p["n"], {"n": jnp.array(1)}, {"n": jnp.array(1)})
    with pytest.raises(ValueError, match=r"v has shape \(3,\), but params has shape \(2,\)"):
        so.hvp(jnp.sum, jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match="v must have the tree structure of params"):
        so.hvp(jnp.sum, jnp.ones(2), (jnp.ones(2),))
    with pytest.raises(ValueError, match="must have the tree structure"):
        so.hessian(jnp.sum, jnp.ones(2)).mv((jnp.ones(2),))
