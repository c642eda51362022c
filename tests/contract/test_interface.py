"""What a method is called with, and what it answers to a wrong call."""

import functools

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from contract.problems import batch, logistic, logistic_start
from contract.steps import assert_close, trainer
from contract.table import METHODS, rows


@rows()
def test_a_method_is_a_gradient_transformation_with_extra_args(name):
    assert isinstance(METHODS[name].make(), optax.GradientTransformationExtraArgs)


@pytest.mark.quick(5)
@rows()
def test_unknown_keywords_are_ignored(name):
    tx, params = METHODS[name].make(), logistic_start()

    def update(params, **extra):
        f = logistic(batch())
        return tx.update(jax.grad(f)(params), tx.init(params), params, value_fn=f, **extra)

    plain = jax.make_jaxpr(update)(params)
    with_more = jax.make_jaxpr(functools.partial(update, loss=1.0, tags=("a",)))(params)
    assert len(plain.eqns) == len(with_more.eqns)


@rows()
def test_a_missing_params_gives_an_error_that_shows_the_call(name):
    tx, params = METHODS[name].make(), logistic_start()
    with pytest.raises(ValueError, match=r"needs params.*opt\.update\(grad, state, params, value="):
        tx.update(params, tx.init(params), value_fn=logistic(batch()))


@rows(lambda method: method.gradients_alone)
def test_a_method_of_gradients_alone_needs_no_value_fn(name):
    tx, params = trainer(name).tx, logistic_start()
    expected = trainer(name).run(params, batch(), 1)
    updates, _ = jax.jit(tx.update)(expected.grads, tx.init(params), params)
    assert_close(updates, expected.updates)


@rows(lambda method: not method.gradients_alone)
def test_a_missing_value_fn_gives_an_error_that_shows_the_call(name):
    tx, params = METHODS[name].make(), logistic_start()
    with pytest.raises(
        ValueError, match=r"value_fn.*opt\.update\(grad, state, params, value=.*apply_gradients"
    ):
        tx.update(params, tx.init(params), params)


@rows(lambda method: not method.plain)
def test_a_plain_function_as_value_fn_gives_an_error_that_shows_compose(name):
    tx, params = METHODS[name].make(), logistic_start()
    with pytest.raises(TypeError, match=r"compose\(loss, model\)"):
        tx.update(params, tx.init(params), params, value_fn=lambda p: jnp.sum(p["w"] ** 2))


@rows(lambda method: method.plain)
def test_a_plain_function_serves_as_value_fn(name):
    tx, params = METHODS[name].make(), logistic_start()

    def update(params):
        f = lambda p: jnp.sum(p["w"] ** 2) + p["b"] ** 4
        return tx.update(jax.grad(f)(params), tx.init(params), params, value_fn=f)

    updates, _ = jax.eval_shape(update, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@rows()
@pytest.mark.parametrize("leaf", [jnp.ones(2, complex), jnp.ones(2, int)], ids=["complex", "int"])
def test_parameters_that_are_not_real_are_refused_by_name(name, leaf):
    tx, params = METHODS[name].make(), {"b": jnp.zeros(()), "w": leaf}
    with pytest.raises(TypeError, match=r"params\['w'\] (is complex|has dtype int)"):
        tx.init(params)
