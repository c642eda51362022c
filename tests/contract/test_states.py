"""Shapes, dtypes and states: what they hold, that they stay so, and that they can be saved."""

import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from cases import with_slow
from contract.problems import batch, join, logistic_start
from contract.steps import assert_identical, signature, trainer, training_step, vdot
from contract.table import METHODS, REPRESENTATIVES, representatives, rows
from flax import serialization
from jax.flatten_util import ravel_pytree


@rows()
def test_init_works_on_shapes_alone(name):
    tx, params = METHODS[name].make(), logistic_start()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    assert_identical(tx.init(shapes), tx.init(params))
    assert signature(jax.eval_shape(tx.init, shapes)) == signature(tx.init(params))


# What a dtype does to a step is done in the tree, the solvers and the curvatures, by the same lines
# for all methods of a kind: all dtypes are for the representatives, float32 for the others.
DTYPES = ["float16", "bfloat16", "float32", "float64"]
PLAIN = [(name, "float32") for name in METHODS]
SPECIAL = [(name, dtype) for name in REPRESENTATIVES for dtype in DTYPES if dtype != "float32"]
# Where a constant is of float64:
UNDER_X64 = [(name, "float32 under x64") for name in METHODS]
CASES = with_slow([*UNDER_X64, *SPECIAL], lambda name, case: name in REPRESENTATIVES)


@pytest.mark.quick(4)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_updates_are_shaped_as_gradients_and_states_keep_their_types(name, case):
    dtype = case.split()[0]
    if dtype not in METHODS[name].dtypes:
        pytest.skip("the method does not support this dtype")
    with jax.enable_x64("64" in case):
        tx, params, data = METHODS[name].make(), logistic_start(dtype), batch(dtype)
        step = jax.jit(training_step(tx))  # traced once, for all of the following
        state = tx.init(params)
        first = jax.eval_shape(step, params, state, data)
        assert signature(first.state) == signature(state)
        assert signature(first.updates) == signature(first.grads)
        assert signature(first.grads) == signature(params)

        def body(carry):
            return step(*carry, data)[:2]

        carry = (params, state)
        loops = (
            lambda c: jax.lax.scan(lambda c, _: (body(c), None), c, length=2)[0],
            lambda c: jax.lax.while_loop(lambda c: c[0]["b"] < 0, body, c),
            lambda c: jax.lax.cond(c[0]["b"] < 0, body, lambda c: c, c),
        )
        for loop in loops:
            assert signature(jax.eval_shape(loop, carry)) == signature(carry)


@pytest.mark.quick(8)
@pytest.mark.parametrize(("name", "dtype"), [*PLAIN, *SPECIAL])
def test_it_descends_in_every_dtype(name, dtype):
    if dtype not in METHODS[name].dtypes:
        pytest.skip("the method does not support this dtype")
    with jax.enable_x64(dtype == "float64"):
        step, params, data = trainer(name), logistic_start(dtype), batch(dtype)
        first = step(params, step.begin(params, data), data)
        assert vdot(first.updates, first.grads) < 0
        assert {x.dtype for x in jax.tree.leaves(first.params)} == {jnp.dtype(dtype)}
        later = step.run(first.params, data, 3, first.state)
        assert later.value < first.value
        assert not np.isnan(join(later.params)).any()


@rows()
def test_states_hold_plain_arrays_alone(name):
    outcome = trainer(name).run(logistic_start(), batch(), 1)
    for state in (trainer(name).tx.init(logistic_start()), outcome.state):
        leaves = jax.tree.leaves(state)
        assert leaves and all(isinstance(leaf, jax.Array) for leaf in leaves)
        assert not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves)


@rows()
def test_any_number_of_calls_takes_one_trace(name):
    step = trainer(name)
    step.run(logistic_start(), batch(), 1)
    traces = step.traces
    step.run(logistic_start(), batch(), 3)
    assert step.traces == traces


def assert_goes_on(name, saved, loaded):
    """That what was loaded takes the same next step as what was saved, to the bit."""
    assert_identical(loaded, (saved.params, saved.state))
    again = trainer(name)(*loaded, batch())
    assert_identical(again, trainer(name)(saved.params, saved.state, batch()))


def by_pickle(state, file):
    file.write_bytes(pickle.dumps(jax.device_get(state)))
    return pickle.loads(file.read_bytes())


def by_numpy(state, file):
    leaves, structure = jax.tree.flatten(state)
    np.savez(file.with_suffix(".npz"), *leaves)
    return jax.tree.unflatten(structure, list(np.load(file.with_suffix(".npz")).values()))


def by_flax(state, file):
    file.write_bytes(serialization.to_bytes(state))
    return serialization.from_bytes(jax.tree.map(jnp.zeros_like, state), file.read_bytes())


def by_one_vector(state, file):
    # The numbers of each dtype in a vector of their own: counts beyond 2²⁴ are no float32.
    leaves, structure = jax.tree.flatten(state)
    flat, unravel = ravel_pytree(leaves)
    assert flat.ndim == 1
    alike = [
        [i for i, x in enumerate(leaves) if x.dtype == kind] for kind in {x.dtype for x in leaves}
    ]
    for places in alike:
        vector, unravel = ravel_pytree([leaves[i] for i in places])
        for i, leaf in zip(places, unravel(vector), strict=True):
            leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)


ROUTES = (by_pickle, by_numpy, by_flax, by_one_vector)


@pytest.mark.quick(4)
@rows()
def test_a_state_that_was_saved_and_loaded_takes_the_same_next_step(name, tmp_path):
    saved = trainer(name).run(logistic_start(), batch(), 2)
    for route in ROUTES:
        loaded = route(saved.state, tmp_path / "state")
        chex.assert_trees_all_close(loaded, saved.state, rtol=0)
        assert_identical(loaded, saved.state)
    assert_goes_on(name, saved, (saved.params, jax.tree.map(jnp.asarray, loaded)))


@pytest.mark.quick(1)
@representatives
def test_a_checkpoint_takes_the_same_next_step(name, tmp_path):
    saved = trainer(name).run(logistic_start(), batch(), 2)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", (saved.params, saved.state))
        checkpointer.wait_until_finished()
        loaded = checkpointer.restore(tmp_path / "state", (saved.params, saved.state))
    assert_goes_on(name, saved, loaded)
