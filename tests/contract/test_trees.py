"""Trees of parameters of every shape, and those of neural network libraries."""

import jax
import jax.numpy as jnp
import pytest
from contract.problems import affine, batch, join, modules
from contract.steps import assert_close, signature, trainer, training_step
from contract.table import METHODS, REPRESENTATIVES, representatives, rows, rows_of_kinds

import secondorder as so

TREE = {
    "none": None,
    "scalar": jnp.array(0.3, jnp.float32),
    "nested": ((jnp.array([0.1, -0.2]),), [jnp.zeros((0, 2))]),
    "matrix": jnp.array([[0.5], [0.4]]),
}


def of_an_affine_model(name):
    """``(params, state) -> Outcome``; the data are the parameters, by their shapes alone."""
    step = training_step(trainer(name).tx, affine)
    return jax.jit(lambda params, state: step(params, state, params))


@rows_of_kinds(lambda method: not method.by_leaf)
def test_any_tree_has_updates_and_a_state_of_its_own_shape(name):
    state = trainer(name).tx.init(TREE)
    outcome = jax.eval_shape(of_an_affine_model(name), TREE, state)
    assert signature(outcome.updates) == signature(TREE)
    assert signature(outcome.state) == signature(state)


# That parameters are one vector, whatever their tree, is the work of the tree, the operators and
# the solvers: a method of each kind shows it.
WHOLE = [name for name in REPRESENTATIVES if not METHODS[name].by_leaf]


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", WHOLE)
def test_the_shape_of_the_tree_does_not_change_the_step(name):
    def updates_of(params):
        outcome = of_an_affine_model(name)(params, trainer(name).tx.init(params))
        return join(outcome.updates)

    assert_close(updates_of(TREE), updates_of(join(TREE)))


@rows()
def test_an_empty_tree_passes_through(name):
    tx, nothing = METHODS[name].make(), {"a": None, "b": ()}
    objective = so.compose(so.squared_error(jnp.zeros(1)), lambda p: jnp.ones(1))
    updates, state = tx.update(nothing, tx.init(nothing), nothing, value_fn=objective)
    assert updates == nothing
    assert signature(state) == signature(tx.init(nothing))


@pytest.mark.quick(4)
@representatives
def test_module_trees_are_parameters_like_any_others(name):
    tx, data = trainer(name).tx, batch()
    for library, params, apply in modules():
        loss = so.sigmoid_cross_entropy(data["y"][:, None])
        step = training_step(tx, lambda data: so.per_example(loss, apply, data["x"]))  # noqa: B023
        state = tx.init(params)
        outcome = jax.eval_shape(step, params, state, data)
        assert signature(outcome.updates) == signature(params), library
        assert signature(outcome.state) == signature(state), library
