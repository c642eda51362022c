"""What can go wrong: indefinite curvature, NaN in batch, gradient or trial, a value left out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract.problems import batch, logistic, logistic_start, valley
from contract.steps import assert_close, assert_identical, diagnostics, memory, trainer, vdot
from contract.table import METHODS, representatives, rows

from secondorder.solvers import Stop


@functools.cache
def indefinite():
    """A point of a valley whose curvature is negative along the gradient."""
    params, theta = jnp.array([0.0, 2.0]), (1.0, 2.0)
    grad, hessian = jax.grad(valley(theta))(params), jax.hessian(valley(theta))(params)
    assert grad @ hessian @ grad < -1
    return params, theta


@pytest.mark.quick(3)
@rows()
def test_where_the_curvature_is_indefinite_it_descends_or_rejects_and_says_so(name):
    step, (params, theta) = trainer(name, valley), indefinite()
    outcome = step(params, step.begin(params, theta), theta)
    report = diagnostics(outcome.state)
    descends = vdot(outcome.updates, outcome.grads) < 0
    rejected = vdot(outcome.updates, outcome.updates) == 0 and not report["accepted"]
    assert descends or rejected
    if METHODS[name].flags:
        assert report["stopped"] in METHODS[name].flags


@pytest.mark.quick(3)
@rows()
def test_a_batch_of_nan_changes_neither_parameters_nor_memory(name):
    step = trainer(name)
    before = step.run(logistic_start(), batch(), 2)
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), batch())
    outcome = step(before.params, before.state, broken)
    assert np.isnan(outcome.value)
    assert vdot(outcome.updates, outcome.updates) == 0
    assert_identical(outcome.params, before.params)
    assert_identical(memory(outcome.state), memory(before.state))
    report, earlier = diagnostics(outcome.state), diagnostics(before.state)
    assert not report["accepted"] and report["rejections"] == earlier["rejections"] + 1
    assert report["stopped"] == Stop.NONFINITE


@pytest.mark.quick(3)
@rows()
def test_ten_batches_of_nan_in_a_row_leave_a_run_as_it_would_be_without_them(name):
    step = trainer(name)
    before = step.run(logistic_start(), batch(), 2)
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), batch())
    outcome = step.run(before.params, broken, 10, before.state)
    assert diagnostics(outcome.state)["scale"] == diagnostics(before.state)["scale"]
    after = step.run(outcome.params, batch(), 3, outcome.state)
    clean = step.run(before.params, batch(), 3, before.state)
    assert_identical(after.params, clean.params)
    assert after.value < before.value


@pytest.mark.quick(4)
@rows()
def test_a_gradient_of_nan_alone_changes_nothing(name):
    start = trainer(name).tx.init(logistic_start())
    broken = {"b": np.float32(np.nan), "w": np.float32(1)}
    outcome = trainer(name)(logistic_start(), start, batch(), broken)
    assert vdot(outcome.updates, outcome.updates) == 0
    assert_identical(memory(outcome.state), memory(start))
    after, before = diagnostics(outcome.state), diagnostics(start)
    assert not after["accepted"] and after["scale"] == before["scale"]


@pytest.mark.quick(2)
@representatives
def test_a_value_that_is_not_passed_is_computed(name):
    tx, params = trainer(name).tx, logistic_start()
    expected = trainer(name).run(params, batch(), 1)
    update = jax.jit(lambda g, state: tx.update(g, state, params, value_fn=logistic(batch())))
    updates, _ = update(expected.grads, tx.init(params))
    assert_close(updates, expected.updates)


@pytest.mark.quick(4)
@rows(lambda method: method.closed_loop)
def test_a_step_to_nan_is_rejected_and_the_next_one_is_shorter(name):
    step, data = trainer(name), batch(wall=1e-3)
    outcome = step(logistic_start(), step.tx.init(logistic_start()), data)
    assert not diagnostics(outcome.state)["accepted"]
    assert vdot(outcome.updates, outcome.updates) == 0
    assert_identical(memory(outcome.state), memory(step.tx.init(logistic_start())))
    # It goes on until a step ends this side of the wall, and that one goes downhill.
    for _ in range(30):
        outcome = step(outcome.params, outcome.state, data)
        if diagnostics(outcome.state)["accepted"]:
            break
    assert vdot(outcome.updates, outcome.grads) < 0
    assert 0 < vdot(outcome.updates, outcome.updates) <= 1e-3


@rows(lambda method: not method.closed_loop and "learning_rate" not in method.options)
def test_a_line_search_stays_on_this_side_of_nan(name):
    step, data = trainer(name), batch(wall=1e-3)
    outcome = step(logistic_start(), step.tx.init(logistic_start()), data)
    assert np.isfinite(logistic(data)(outcome.params))
    assert vdot(outcome.updates, outcome.grads) < 0


@pytest.mark.quick(4)
@rows(lambda method: method.closed_loop)
def test_the_gain_compares_values_of_the_very_objective_it_was_given(name):
    step, data = trainer(name), batch()
    outcome = step(logistic_start(), step.tx.init(logistic_start()), data)
    report = diagnostics(outcome.state)
    actual = logistic(data)(outcome.params) - outcome.value
    np.testing.assert_allclose(report["gain"], actual / report["predicted"], rtol=1e-2)
