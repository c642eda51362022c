"""Adapters: ``only_extra_args`` hides keywords from transformations that would choke on them."""

import jax.numpy as jnp
import optax
import pytest

import secondorder as so


def spy():
    """A transformation that keeps the extra arguments of its last update."""
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.clear()
        seen.update(extra)
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: (), update), seen


def test_only_the_named_arguments_come_through():
    inner, seen = spy()
    tx = so.only_extra_args(inner, "value", "grad")
    tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=1.0, value_fn=abs, epoch=3)
    assert seen == {"value": 1.0}  # grad was not passed, so it is not made up


def test_without_names_nothing_comes_through():
    inner, seen = spy()
    tx = so.only_extra_args(inner)
    tx.update(jnp.ones(2), (), None, value=1.0)
    assert seen == {}


def test_a_transformation_without_extra_arguments_may_be_wrapped_too():
    tx = so.only_extra_args(optax.sgd(0.5), "value")
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), value=1.0, epoch=3)
    assert updates.tolist() == [-0.5, -0.5]


def test_state_and_parameters_are_the_inner_ones():
    inner = optax.adamw(1e-1, weight_decay=0.5)
    tx = so.only_extra_args(inner, "value")
    params = jnp.array([2.0, -1.0])
    ours, state = tx.update(jnp.ones(2), tx.init(params), params, epoch=3)
    theirs, expected = inner.update(jnp.ones(2), inner.init(params), params)
    assert ours.tolist() == theirs.tolist()
    assert state[0].count == expected[0].count == 1


def test_the_line_search_of_optax_needs_it_for_a_keyword_of_ones_own():
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=5)
    f = lambda p: p @ p
    params = jnp.array([1.0, 2.0])
    given = {"value": f(params), "grad": 2 * params, "value_fn": f, "epoch": 3}
    with pytest.raises(TypeError):
        search.update(-2 * params, search.init(params), params, **given)
    tx = so.only_extra_args(search, "value", "grad", "value_fn")
    updates, _ = tx.update(-2 * params, tx.init(params), params, **given)
    assert f(params + updates) < f(params)
