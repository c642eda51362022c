"""Curvature afresh at every step, and the key it keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import problems
import pytest

import secondorder as so

PROBLEM = problems.softmax_mlp()


def updated(curvature, state=None, params=PROBLEM.params):
    state = curvature.init(params) if state is None else state
    return curvature.update(jax.grad(PROBLEM.objective)(params), state, params, PROBLEM.objective)


@pytest.mark.quick(2)
@pytest.mark.parametrize("kind", [so.hessian, so.ggn, so.fisher, so.empirical_fisher])
def test_exact_is_the_operator_at_the_parameters_of_the_step(kind):
    v = jax.tree.map(np.cos, PROBLEM.params)

    @jax.jit
    def products(params):
        op, state = updated(so.exact(kind), params=params)
        assert jax.tree.leaves(state) == []
        return op.mv(v), kind(PROBLEM.objective, params).mv(v)

    for params in (PROBLEM.params, jax.tree.map(lambda x: np.float32(0.5) * x, PROBLEM.params)):
        found, expected = products(params)
        np.testing.assert_allclose(oracles.flat(found), oracles.flat(expected), rtol=1e-6)


def test_any_function_of_that_shape_serves_and_gets_its_options():
    damped = lambda value_fn, params, amount: so.ggn(value_fn, params).damped(amount)

    @jax.jit
    def products(v):
        op, _ = updated(so.exact(damped, amount=0.5), params=v)
        return op.mv(v), so.ggn(PROBLEM.objective, v).damped(0.5).mv(v)

    found, expected = products(PROBLEM.params)
    np.testing.assert_allclose(oracles.flat(found), oracles.flat(expected), rtol=1e-6)


@functools.partial(jax.jit, static_argnums=0)
def drawn(samples, state):
    op, state = updated(so.exact(so.fisher, seed=0, samples=samples), state)
    v = jax.tree.map(jnp.cos, PROBLEM.params)
    return op.mv(v), op.mv(so.tree.scale(2.0, v)), state


def test_each_step_draws_anew_from_the_key_in_the_state():
    start = so.exact(so.fisher, seed=0, samples=1).init(PROBLEM.params)
    first, twice, state = drawn(1, start)
    np.testing.assert_allclose(oracles.flat(twice), 2 * oracles.flat(first), rtol=1e-4, atol=1e-6)
    second, _, _ = drawn(1, state)
    assert oracles.relative_error(oracles.flat(second), oracles.flat(first)) > 0.01
    again, _, _ = drawn(1, start)
    np.testing.assert_array_equal(oracles.flat(again), oracles.flat(first))
    fewer, _, _ = drawn(3, start)
    assert oracles.relative_error(oracles.flat(fewer), oracles.flat(first)) > 0.01


def test_other_seeds_draw_otherwise():
    draws = [drawn(1, so.exact(so.fisher, seed=seed).init(None))[0] for seed in (0, 1)]
    assert oracles.relative_error(*map(oracles.flat, draws)) > 0.01


def test_the_state_keeps_its_structure_and_is_made_without_values():
    for curvature in (so.exact(so.ggn), so.exact(so.fisher, seed=3), so.curvature.identity()):
        abstract = jax.eval_shape(curvature.init, jax.eval_shape(lambda: PROBLEM.params))
        state = curvature.init(PROBLEM.params)
        after = jax.jit(lambda s, c=curvature: updated(c, s)[1])(state)
        shapes = [
            (jax.tree.structure(s), [(x.shape, x.dtype) for x in jax.tree.leaves(s)])
            for s in (abstract, state, after)
        ]
        assert shapes[0] == shapes[1] == shapes[2]


def test_no_curvature_is_the_identity():
    op, state = so.curvature.identity().update(None, (), None, None)
    np.testing.assert_array_equal(so.dense(op, jnp.ones(3)), np.eye(3))
    assert state == ()


def test_a_plain_function_is_refused_when_the_step_is_taken():
    with pytest.raises(TypeError, match=r"compose\(loss, model\)"):
        so.exact(so.ggn).update(jnp.ones(2), (), jnp.ones(2), jnp.sum)
