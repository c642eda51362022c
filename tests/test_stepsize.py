"""Steps along a direction: a learning rate, a schedule, or a line search."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from secondorder import tree
from secondorder.stepsize import decayed, step_along, zoom


def along(*direction) -> optax.GradientTransformation:
    """A transformation whose updates are this direction, whatever the gradient."""

    def update(updates, state, params=None):
        return jnp.asarray(direction, updates.dtype), state

    return optax.GradientTransformation(lambda params: (), update)


def one_update(tx, value_fn, params, state=None, **extra):
    state = tx.init(params) if state is None else state

    @jax.jit
    def update(params, state):
        value, grad = jax.value_and_grad(value_fn)(params)
        given = {"value": value, "grad": grad, "value_fn": value_fn} | extra
        return tx.update(grad, state, params, **given)

    return update(params, state)


def wolfe(f, p, step, slope_tolerance=1e-4, curvature_tolerance=0.9):
    """Whether the step decreases ``f`` enough, and flattens it enough (strong Wolfe)."""
    d = np.asarray(step)
    before, after = jax.grad(f)(p) @ d, jax.grad(f)(p + step) @ d
    enough = f(p + step) <= f(p) + slope_tolerance * before + 1e-6
    return bool(enough) and bool(abs(after) <= curvature_tolerance * abs(before))


COSH = lambda p: jnp.sum(jnp.cosh(p))


def test_a_learning_rate_multiplies_and_keeps_the_sign():
    updates, _ = one_update(step_along(along(1.0, -2.0), 0.25), COSH, jnp.ones(2))
    assert updates.tolist() == [0.25, -0.5]


def test_a_schedule_is_read_at_each_step():
    tx = step_along(along(1.0), lambda count: 1.0 / (1 + count))
    state, seen = tx.init(jnp.ones(1)), []
    for _ in range(3):
        updates, state = one_update(tx, COSH, jnp.ones(1), state)
        seen.append(float(updates[0]))
    np.testing.assert_allclose(seen, [1, 1 / 2, 1 / 3], rtol=1e-6)


@pytest.mark.quick(2)
@pytest.mark.parametrize("length", [1e-3, 0.1, 1.0, 30.0])
def test_without_a_learning_rate_the_step_satisfies_the_strong_wolfe_conditions(length):
    params = jnp.array([2.0, -1.0])
    tx = step_along(along(-length, 0.5 * length), None)
    updates, _ = one_update(tx, COSH, params)
    assert wolfe(COSH, params, updates)


def test_a_step_of_the_right_length_is_taken_as_it_is():
    # Newton's step on a quadratic: the first trial, 1, is the last one.
    f = lambda p: 0.5 * p @ p
    updates, state = one_update(step_along(along(-3.0, 4.0), None), f, jnp.array([3.0, -4.0]))
    assert updates.tolist() == [-3.0, 4.0]
    assert state[-1].info.num_linesearch_steps == 1


def test_the_first_guess_is_one_or_the_last_step_size():
    f = lambda p: 0.5 * p @ p
    for guess, first in (("one", 1.0), ("keep", 0.125)):
        tx = step_along(along(-8.0), None, first_guess=guess)
        state = tx.init(jnp.array([1.0]))
        known = {"learning_rate": jnp.float32(0.125), "value": jnp.float32(0.5)}
        state = (state[0], state[1]._replace(**known))
        _, new = one_update(tx, f, jnp.array([1.0]), state)
        # 0.125 is the exact answer: from there it is found at once, from 1 it is not.
        assert bool(new[1].info.num_linesearch_steps == 1) == (first == 0.125)
        np.testing.assert_allclose(new[1].learning_rate, 0.125, rtol=0.5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_parameters_are_searched_in_float32(dtype):
    params = jnp.array([2.0, -1.0], dtype)
    f = lambda p: jnp.sum(jnp.cosh(p))  # a value of low precision, too
    updates, state = one_update(step_along(along(-30.0, 15.0), None), f, params)
    assert updates.dtype == dtype and f(params + updates) < f(params)
    assert state[-1].learning_rate.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(state[-1].grad)} == {jnp.dtype("float32")}


def test_value_and_gradient_are_computed_where_they_are_not_passed():
    params, tx = jnp.array([2.0, -1.0]), step_along(along(-30.0, 15.0), None)
    passed, _ = one_update(tx, COSH, params)
    for missing in ({"value": None}, {"grad": None}, {"value": None, "grad": None}):
        updates, _ = one_update(tx, COSH, params, **missing)
        np.testing.assert_allclose(updates, passed, rtol=1e-6)


def test_unknown_keywords_are_ignored():
    updates, _ = one_update(zoom(), COSH, jnp.ones(1), epoch=3, loss=1.0)
    assert np.isfinite(updates).all()


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_search_in_nan_gives_zeros_and_learns_nothing(value):
    tx = zoom()
    start = tx.init(jnp.ones(2))
    updates, state = one_update(tx, lambda p: COSH(p) * value, jnp.ones(2), start)
    assert not updates.any()
    assert jax.tree.map(lambda a, b: bool(a == b) if a.ndim == 0 else True, state, start) == (
        jax.tree.map(lambda a: True, start)
    )


def test_a_step_of_nothing_leaves_the_search_as_it_was():
    tx = step_along(along(0.0, 0.0), None, first_guess="keep")
    start = tx.init(jnp.ones(2))
    updates, state = one_update(tx, COSH, jnp.ones(2), start)
    assert not updates.any()
    assert state[-1].learning_rate == start[-1].learning_rate == 1


def test_the_search_stays_on_this_side_of_nan():
    f = lambda p: jnp.where(p[0] < 0.5, jnp.nan, p[0] ** 2)
    updates, _ = one_update(step_along(along(-4.0), None), f, jnp.ones(1))
    assert -0.5 <= updates[0] < 0


def test_a_direction_that_is_far_too_long_still_descends():
    # As Gauss-Newton's where J is nearly singular; Optax's search alone ends on f = 6e22.
    f = lambda p: jnp.sum(p**2 + p**4)
    updates, state = one_update(step_along(along(-1e14), None), f, jnp.ones(1))
    assert f(jnp.ones(1) + updates) < f(jnp.ones(1))
    assert state[-1].value == f(jnp.ones(1) + updates)
    np.testing.assert_allclose(updates, -1e14 * state[-1].learning_rate, rtol=1e-5)
    assert state[-1].info.num_linesearch_steps > 25  # the cuts are counted with the search's own


@pytest.mark.parametrize("length", [1.0, 1e14])
def test_a_direction_that_only_ascends_raises_nothing(length):
    f = lambda p: jnp.sum(p**2 + p**4)
    updates, _ = one_update(step_along(along(length), None), f, jnp.ones(1))
    assert f(jnp.ones(1) + updates) <= f(jnp.ones(1)) * (1 + 2e-6)


def test_masked_parameters_are_searched_with_the_gradient_of_their_own():
    hole = optax.MaskedNode()
    params, direction = {"a": jnp.array([1.0]), "b": hole}, {"a": jnp.array([-0.5]), "b": hole}
    whole = {"a": jnp.array([2.0]), "b": jnp.array([7.0])}  # as a user of optax.masked passes it
    f = lambda p: p["a"][0] ** 2
    tx = zoom()
    updates, _ = tx.update(
        direction, tx.init(params), params, value=jnp.float32(1.0), grad=whole, value_fn=f
    )
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert f(tree.add(params, updates)) < 1


def test_an_empty_tree_passes_through():
    tx = zoom()
    assert tx.update({}, tx.init({}), {}, value_fn=lambda p: 0.0) == ({}, optax.EmptyState())


@pytest.mark.quick(1)
@pytest.mark.parametrize("guess", ["keep", "learnt"])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_the_very_first_trial_follows_a_change_of_units(guess, unit):
    f = lambda p: 0.5 * (p / unit) @ (p / unit)
    params = unit * jnp.array([3.0, -4.0])
    tx = step_along(optax.scale(-1.0), None, first_guess=guess)
    grad = jax.grad(f)(params)
    updates, state = tx.update(
        grad, tx.init(params), params, value=f(params), grad=grad, value_fn=f
    )
    np.testing.assert_allclose(updates, -params, rtol=1e-5)  # Polyak's step of a circle
    assert state[-1].info.num_linesearch_steps == 1


# Weight decay

NET = {
    "layer": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0])},
    "scale": jnp.ones(2),
}
MASKS = {
    "none": None,
    "a tree": {"layer": {"kernel": True, "bias": False}, "scale": True},
    "a prefix": {"layer": True, "scale": False},
    "one bool": False,
    "a function": lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
}


@pytest.mark.parametrize("name", MASKS)
def test_weight_decay_of_masked_leaves_is_that_of_optax(name):
    mask, grads = MASKS[name], jax.tree.map(lambda x: 0.5 * x + 1, NET)
    theirs = optax.chain(
        optax.scale(-1.0), optax.add_decayed_weights(0.1, mask), optax.scale_by_learning_rate(0.3)
    )
    ours = step_along(optax.identity(), 0.3, weight_decay=0.1, weight_decay_mask=mask)
    found, _ = ours.update(grads, ours.init(NET), NET)
    expected, _ = theirs.update(grads, theirs.init(NET), NET)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_a_mask_holds_where_optax_masks_some_of_the_parameters():
    mask = {"layer": {"kernel": True, "bias": False}, "scale": True}
    tx = optax.masked(decayed(0.1, mask), {"layer": True, "scale": False})
    ones = jax.tree.map(jnp.ones_like, NET)
    found, _ = tx.update(ones, tx.init(NET), NET)
    kernel = ones["layer"]["kernel"] - 0.1 * NET["layer"]["kernel"]
    chex.assert_trees_all_close(
        found, ones | {"layer": ones["layer"] | {"kernel": kernel}}, rtol=1e-6
    )


def test_a_step_that_moves_other_leaves_alone_still_decays_and_one_of_nothing_does_not():
    tx = decayed(0.1, {"layer": True, "scale": False})
    only = lambda x: jax.tree.map(jnp.zeros_like, NET) | {"scale": x}
    found, _ = tx.update(only(jnp.ones(2)), tx.init(NET), NET)
    np.testing.assert_allclose(found["layer"]["bias"], -0.1 * NET["layer"]["bias"], rtol=1e-6)
    found, _ = tx.update(only(jnp.zeros(2)), tx.init(NET), NET)
    assert all(np.all(u == 0) for u in jax.tree.leaves(found))
