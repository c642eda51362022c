"""The local model is a function of the step."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import problems

import secondorder as so
from secondorder.operators import Diagonal, Identity


def test_the_model_is_the_taylor_polynomial_of_second_order(x64):
    problem = problems.softmax_mlp(jnp.float64)
    f, p = problem.objective, problem.params
    v = jax.tree.map(jnp.cos, p)

    @jax.jit
    def parts(p, t):
        step = so.tree.scale(t, v)
        model = so.Quadratic(jax.grad(f)(p), so.hessian(f, p))(step)
        return model, f(so.tree.add(p, step)) - f(p)

    errors = [abs(float(np.subtract(*parts(p, t)))) for t in (1e-2, 1e-3)]
    assert 500 < errors[0] / errors[1] < 2000  # what is left falls with the third power


def test_the_model_is_the_formula_on_the_joined_vectors():
    problem = problems.two_heads()
    d = jax.tree.map(np.sin, problem.params)

    @jax.jit
    def parts(p):
        g, op = jax.grad(problem.objective)(p), so.ggn(problem.objective, p).damped(0.5)
        return so.Quadratic(g, op)(d), g, so.dense(op, p)

    change, g, matrix = parts(problem.params)
    g, d = oracles.flat(g), oracles.flat(d)
    np.testing.assert_allclose(change, g @ d + 0.5 * d @ np.asarray(matrix) @ d, rtol=1e-5)


def test_no_step_changes_nothing_and_newtons_step_is_the_minimum():
    g = {"a": jnp.array([2.0, -6.0]), "b": jnp.array(4.0)}
    entries = {"a": jnp.array([1.0, 3.0]), "b": jnp.array(2.0)}
    model = so.Quadratic(g, Diagonal(entries))
    assert model(so.tree.zeros_like(g)) == 0
    newton = jax.tree.map(lambda g, b: -g / b, g, entries)
    np.testing.assert_allclose(model(newton), -0.5 * (4 / 1 + 36 / 3 + 16 / 2))
    slope = jax.grad(model)(newton)
    np.testing.assert_allclose(oracles.flat(slope), np.zeros(3), atol=1e-6)


def test_a_bfloat16_model_is_summed_in_float32():
    g = jnp.full(4096, 1.0, jnp.bfloat16)
    change = so.Quadratic(g, Identity())(g)
    assert change.dtype == jnp.float32 and change == 1.5 * 4096
