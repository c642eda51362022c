"""JAX's transformations of a training step, and its devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract.problems import batch, logistic_start
from contract.steps import assert_close, assert_identical, diagnostics, trainer, training_step
from contract.table import representatives, rows, rows_of_kinds
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import secondorder as so


@rows()
def test_parameters_and_state_can_be_donated(name):
    # Copies, since an array that shares its memory with one of NumPy is not donated.
    step, params = trainer(name), jax.tree.map(jnp.copy, logistic_start())
    state = step.tx.init(params)
    kept = step(params, state, batch())
    donated = step.donate(params, state, batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert_identical(donated, kept)


@pytest.mark.quick(1)
@rows_of_kinds()
def test_training_under_scan_and_vmap_equals_the_python_loop(name):
    step = training_step(trainer(name).tx)

    def train(params, data):
        def body(carry, _):
            outcome = step(*carry, data)
            return (outcome.params, outcome.state), outcome.value

        return jax.lax.scan(body, (params, trainer(name).tx.init(params)), length=3)

    starts = {"b": jnp.array([0.0, 0.3]), "w": jnp.array([[0.0, 0.0], [0.2, -0.1]])}
    (params, state), values = jax.jit(jax.vmap(train, in_axes=(0, None)))(starts, batch())
    for i in range(2):
        pick = functools.partial(jax.tree.map, lambda x: x[i])  # noqa: B023
        alone = trainer(name).run(pick(starts), batch(), 3)
        assert_close(pick(params), alone.params)
        assert_close(values[i, -1], alone.value)
        assert diagnostics(pick(state))["steps"] == 3


@pytest.mark.quick(1)
@representatives
def test_a_batch_spread_over_eight_devices_gives_the_same_steps(name):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("batch"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    data = {key: jax.device_put(x, spread if x.ndim else everywhere) for key, x in batch().items()}
    params, state = jax.device_put(
        (logistic_start(), trainer(name).tx.init(logistic_start())), everywhere
    )
    outcome = trainer(name)(params, state, data)
    assert len(outcome.updates["w"].sharding.device_set) == 8
    assert_close(outcome.updates, trainer(name).run(logistic_start(), batch(), 1).updates)


@pytest.mark.quick(1)
@rows_of_kinds(lambda method: method.matrix_free)
def test_explicitly_sharded_parameters_keep_their_sharding(name):
    tx = trainer(name).tx
    data = jnp.linspace(0.5, 1.5, 16)
    objective = lambda data: so.sum_of_squares(lambda p: jnp.exp(p["w"]) - data)
    step = jax.jit(training_step(tx, objective))
    alone = step({"w": jnp.zeros(16)}, tx.init({"w": jnp.zeros(16)}), data)

    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec("model"))
        params = {"w": jax.device_put(jnp.zeros(16), sharding)}
        outcome = step(params, tx.init(params), jax.device_put(data, sharding))
    assert outcome.updates["w"].sharding == sharding
    assert_close(np.asarray(outcome.updates["w"]), np.asarray(alone.updates["w"]))
