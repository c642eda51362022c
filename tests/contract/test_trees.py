"""Trees of parameters of every shape, and those of neural network libraries."""

import jax
import jax.numpy as jnp
from contract.problems import affine, batch, join, modules
from contract.steps import assert_close, signature, trainer, training_step
from contract.table import METHODS, representatives, rows

import secondorder as so


@rows(lambda method: not method.by_leaf)
def test_the_shape_of_the_tree_does_not_change_the_step(name):
    tree = {
        "none": None,
        "scalar": jnp.array(0.3, jnp.float32),
        "nested": ((jnp.array([0.1, -0.2]),), [jnp.zeros((0, 2))]),
        "matrix": jnp.array([[0.5], [0.4]]),
    }

    def updates_of(params):
        step = training_step(trainer(name).tx, affine)
        outcome = jax.jit(lambda p, s: step(p, s, p))(params, trainer(name).tx.init(params))
        assert signature(outcome.updates) == signature(params)
        return join(outcome.updates)

    assert_close(updates_of(tree), updates_of(join(tree)))


@rows()
def test_an_empty_tree_passes_through(name):
    tx, nothing = METHODS[name].make(), {"a": None, "b": ()}
    objective = so.compose(so.squared_error(jnp.zeros(1)), lambda p: jnp.ones(1))
    updates, state = tx.update(nothing, tx.init(nothing), nothing, value_fn=objective)
    assert updates == nothing
    assert signature(state) == signature(tx.init(nothing))


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
