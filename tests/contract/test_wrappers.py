"""Optax's wrappers. Where the rule is the wrapper's and not the method's, a few methods show it."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import with_slow
from contract.problems import HELD, batch, logistic, logistic_start
from contract.steps import (
    Outcome,
    assert_close,
    assert_identical,
    diagnostics,
    signature,
    trainer,
    training_step,
    vdot,
)
from contract.table import METHODS, REPRESENTATIVES, representatives, rows, rows_of_kinds

import secondorder as so


def first_update(tx) -> Outcome:
    return jax.jit(training_step(tx))(logistic_start(), tx.init(logistic_start()), batch())


def first_move(update, state, most: int = 5) -> Outcome:
    """The first step that moves: the first updates gather statistics, or their step is rejected."""
    outcome = update(logistic_start(), state, batch())
    for _ in range(most - 1):
        if vdot(outcome.updates, outcome.updates) > 0:
            break
        outcome = update(outcome.params, outcome.state, batch())
    return outcome


@functools.cache
def injected(name):
    """The method with its options as hyperparameters, and its step."""
    factory = METHODS[name].factory
    # A function, which Optax would take for a schedule; what gives shapes by default is no hazard.
    static = {"example"} & set(inspect.signature(factory).parameters)
    tx = optax.inject_hyperparams(factory, static_args=static)(**METHODS[name].options)
    return tx, jax.jit(training_step(tx))


@rows_of_kinds()
def test_options_can_be_injected_as_hyperparameters(name):
    tx, step = injected(name)
    start = logistic_start(), tx.init(logistic_start())
    shown = jax.eval_shape(step, *start, batch())
    assert set(METHODS[name].options) - {"example"} <= set(shown.state.hyperparams)
    assert signature(shown.state) == signature(start[1])
    assert signature(shown.updates) == signature(start[0])


OPTIONS = [(name, option) for name, method in METHODS.items() for option in method.live]
LIVE = with_slow(OPTIONS, lambda name, option: name in REPRESENTATIVES)
INJECTED = sorted({*REPRESENTATIVES, *(name for name, _ in OPTIONS)}, key=list(METHODS).index)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("name",), with_slow(INJECTED, lambda name: name in REPRESENTATIVES))
def test_injected_hyperparameters_give_the_same_step(name):
    tx, step = injected(name)
    outcome = step(logistic_start(), tx.init(logistic_start()), batch())
    expected = trainer(name).run(logistic_start(), batch(), 1)
    assert_close(outcome.updates, expected.updates)
    assert diagnostics(outcome.state)["steps"] == 1


def another(name, option) -> float:
    """Another value of an option than the table's."""
    return 2 * METHODS[name].options[option] + 1.0


@functools.cache
def updates_with_another(name, option):
    """The first two updates, both at the start, with the other value as a constant."""
    tx = METHODS[name].make(**{option: another(name, option)})
    step = jax.jit(training_step(tx))
    first = step(logistic_start(), tx.init(logistic_start()), batch())
    return first.updates, step(logistic_start(), first.state, batch()).updates


@pytest.mark.quick(1)
@pytest.mark.parametrize(("name", "option"), LIVE)
def test_a_schedule_gives_each_step_its_own_value(name, option):
    method = METHODS[name]
    schedule = lambda n: jnp.where(n < 1, method.options[option], another(name, option))
    tx = method.make(**{option: schedule})
    step = jax.jit(training_step(tx))
    first = step(logistic_start(), tx.init(logistic_start()), batch())
    second = step(logistic_start(), first.state, batch())
    assert_close(first.updates, trainer(name).run(logistic_start(), batch(), 1).updates)
    assert_close(second.updates, updates_with_another(name, option)[1])
    assert abs(vdot(second.updates, second.grads) - vdot(first.updates, first.grads)) > 1e-3


@pytest.mark.quick(1)
@pytest.mark.parametrize(("name", "option"), LIVE)
def test_a_changed_hyperparameter_holds_from_the_next_update_on(name, option):
    tx, step = injected(name)
    state = tx.init(logistic_start())
    state.hyperparams[option] = jnp.asarray(another(name, option))
    updates = step(logistic_start(), state, batch()).updates
    assert_close(updates, updates_with_another(name, option)[0])


@pytest.mark.quick(1)
@representatives
def test_multi_steps_applies_the_average_once(name):
    tx = optax.MultiSteps(trainer(name).tx, every_k_schedule=2)
    step = jax.jit(training_step(tx))
    start = tx.init(logistic_start())
    first = step(logistic_start(), start, batch())
    assert vdot(first.updates, first.updates) == 0
    assert signature(first.state) == signature(start)
    assert diagnostics(first.state)["steps"] == 0
    second = step(first.params, first.state, batch())
    expected = trainer(name).run(logistic_start(), batch(), 1)
    assert_close(second.updates, expected.updates)
    assert diagnostics(second.state)["steps"] == 1


@pytest.mark.quick(2)
@representatives
def test_apply_if_finite_passes_updates_through(name):
    tx = optax.apply_if_finite(trainer(name).tx, max_consecutive_errors=2)
    outcome = first_update(tx)
    assert_close(outcome.updates, trainer(name).run(logistic_start(), batch(), 1).updates)
    assert diagnostics(outcome.state)["steps"] == 1


@pytest.mark.quick(1)
@rows_of_kinds()
def test_schedule_free_and_a_moving_average_work_around_it(name):
    tx = optax.contrib.schedule_free(trainer(name).tx, learning_rate=1.0, b1=0.9)
    step, start = jax.jit(training_step(tx)), logistic_start()
    params, state = start, tx.init(start)
    average = start
    for _ in range(8):
        outcome = step(params, state, batch())
        params, state = outcome.params, outcome.state
        assert signature(state) == signature(tx.init(start))
        average = optax.incremental_update(params, average, step_size=0.5)
    assert step._cache_size() == 1 and diagnostics(state)["steps"] == 8
    value = jax.jit(logistic(batch()))
    assert value(optax.contrib.schedule_free_eval_params(state, params)) < value(start)
    assert value(average) < value(start)


@rows_of_kinds()
def test_it_descends_along_gradients_that_another_transformation_has_shortened(name):
    shortened = jax.tree.map(lambda leaf: np.float32(1e-2), logistic_start())
    update = functools.partial(trainer(name), factors=shortened)
    outcome = first_move(update, trainer(name).tx.init(logistic_start()))
    assert vdot(outcome.updates, outcome.grads) < 0


@pytest.mark.quick(2)
@representatives
def test_in_a_named_chain_it_descends_along_clipped_gradients(name):
    links = ("clip", optax.clip_by_global_norm(1e-2)), ("method", trainer(name).tx)
    tx = optax.named_chain(*links)
    outcome = first_move(jax.jit(training_step(tx)), tx.init(logistic_start()))
    assert vdot(outcome.updates, outcome.grads) < 0
    np.testing.assert_equal(diagnostics(outcome.state["method"]), diagnostics(outcome.state))


def frozen_bias(tx, how: str):
    """``tx`` on the weights alone, by one of Optax's two ways."""
    if how == "masked":
        freeze = optax.masked(optax.set_to_zero(), {"b": True, "w": False})
        return optax.chain(optax.masked(tx, {"b": False, "w": True}), freeze)
    return optax.partition({"train": tx, "hold": optax.set_to_zero()}, {"b": "hold", "w": "train"})


@functools.cache
def update_of_the_weights_alone(name):
    def weights_alone(data):
        whole = logistic(data)
        return so.compose(whole.loss, lambda w: whole.model({"b": HELD["b"], "w": w}))

    step = jax.jit(training_step(trainer(name).tx, weights_alone))
    return step(HELD["w"], trainer(name).tx.init(HELD["w"]), batch()).updates


def frozen_step(tx):
    @jax.jit
    def both(params, state):
        objective = logistic(batch())
        value, grads = jax.value_and_grad(objective)(params)
        restricted = so.restrict(objective, params)
        updates, state = tx.update(
            grads, state, params, value=value, grad=grads, value_fn=restricted
        )
        return optax.apply_updates(params, updates), updates, state

    return both


@rows_of_kinds()
def test_a_tree_with_gaps_is_taken_for_what_is_left_of_it(name):
    tx = frozen_bias(trainer(name).tx, "partition")
    moved, updates, state = jax.eval_shape(frozen_step(tx), HELD, tx.init(HELD))
    assert signature(moved) == signature(HELD) == signature(updates)
    assert signature(state) == signature(tx.init(HELD))


@pytest.mark.quick(1)
@representatives
@pytest.mark.parametrize("how", ["partition", "masked"])
def test_frozen_leaves_stay_bit_identical_and_the_others_are_solved_for(name, how):
    tx, params = frozen_bias(trainer(name).tx, how), HELD
    moved, updates, _ = frozen_step(tx)(params, tx.init(params))
    assert_identical(moved["b"], params["b"])
    assert_close(updates["w"], update_of_the_weights_alone(name))


def takes_value_fn(method) -> bool:
    fixed = method.factory is so.gradient_descent and "learning_rate" in method.options
    return not (method.gradients_alone or fixed)


@rows(takes_value_fn)
def test_an_objective_that_is_not_restricted_gets_a_sentence(name):
    f = logistic(batch())
    examples = [f, so.restrict(f, HELD)] if "example" in METHODS[name].options else [None]
    value, grads = jax.eval_shape(jax.value_and_grad(f), HELD)

    def update(example, value, grads):
        changed = {} if example is None else {"example": example}
        tx = frozen_bias(METHODS[name].make(**changed), "partition")
        return tx.update(grads, tx.init(HELD), HELD, value=value, grad=grads, value_fn=f)

    for example in examples:
        with pytest.raises(TypeError, match=r"params has gaps here.*value_fn=secondorder.restrict"):
            jax.eval_shape(functools.partial(update, example), value, grads)


@rows(takes_value_fn)
def test_a_tree_made_flat_gets_a_sentence(name):
    example = {"example": logistic(batch())} if "example" in METHODS[name].options else {}
    tx = optax.flatten(METHODS[name].make(**example))
    value, grads = jax.eval_shape(jax.value_and_grad(logistic(batch())), HELD)

    def update(value, grads):
        known = {"value": value, "grad": grads, "value_fn": logistic(batch())}
        return tx.update(grads, tx.init(HELD), HELD, **known)

    with pytest.raises((TypeError, ValueError), match=r"[Ll]eave optax.flatten out"):
        jax.eval_shape(update, value, grads)


@pytest.mark.quick(2)
@representatives
def test_it_chains_with_the_line_search_of_optax(name):
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)
    tx = optax.chain(trainer(name).tx, so.only_extra_args(search, "value", "grad", "value_fn"))

    update = jax.jit(training_step(tx))
    outcome = first_move(update, tx.init(logistic_start()))
    assert vdot(outcome.updates, outcome.grads) < 0
    assert logistic(batch())(outcome.params) < outcome.value
    # A closed loop hands a step of zeros over.
    behind_a_wall = update(logistic_start(), tx.init(logistic_start()), batch(wall=1e-6))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(behind_a_wall.updates))


@pytest.mark.quick(2)
@representatives
def test_it_chains_with_the_zoom_line_search_of_optax(name):
    search = optax.scale_by_zoom_linesearch(10, initial_guess_strategy="one")
    tx = optax.chain(trainer(name).tx, so.only_extra_args(search, "value", "grad", "value_fn"))
    params = logistic_start()
    outcome = jax.eval_shape(training_step(tx), params, tx.init(params), batch())
    assert signature(outcome.updates) == signature(params)
