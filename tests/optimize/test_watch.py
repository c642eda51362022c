"""Callbacks: each gets the points of its own solve, and may end it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so
from secondorder.optimize import _watch


def quartic(p, c=1.0):
    return jnp.sum((p - c) ** 4)


def watched(most, stop_at=None, **options):
    """A solve, and the points that its callback got; the list is another one at each call."""
    seen = []

    def callback(iterate):
        seen.append(iterate)
        return len(seen) == stop_at

    solve = so.minimize(quartic, jnp.zeros(2), max_steps=most, callback=callback, **options)
    return solve, seen


def test_a_callback_sees_every_point_of_its_own_solve_and_the_last_one(x64):
    for most in (4, 6, 6):  # the later ones by a kept program
        solution, seen = watched(most)
        assert [int(it.steps) for it in seen] == list(range(most + 1))
        for it in seen:
            assert_close(it.value, quartic(it.params))
        np.testing.assert_array_equal(seen[-1].params, solution.params)
        assert seen[-1].grad_norm == solution.grad_norm
    assert not _watch._watchers


@pytest.mark.quick(1)
@pytest.mark.parametrize("method", [None, "bfgs"])
def test_a_callback_ends_the_solve_at_the_point_that_it_got(method, x64):
    solution, seen = watched(50, stop_at=3, optimizer=method)
    assert solution.status == so.Status.STOPPED and not bool(solution.success)
    assert solution.steps == 2 and len(seen) == 3
    np.testing.assert_array_equal(solution.params, seen[-1].params)
    assert_close(solution.value, quartic(solution.params))
    rest = so.minimize(quartic, solution, optimizer=method)
    whole = so.minimize(quartic, jnp.zeros(2), optimizer=method)
    assert_close(rest.params, whole.params)


@pytest.mark.slow
@pytest.mark.parametrize("answer", [1, "yes", None, jnp.zeros(2), np.array([True, False])])
def test_only_true_ends_a_solve(answer):
    solution = so.minimize(quartic, jnp.zeros(2), max_steps=3, callback=lambda it: answer)
    assert solution.status == so.Status.MAX_STEPS


def test_an_error_in_a_callback_is_raised_and_stop_iteration_is_an_end():
    def refuse(iterate):
        raise KeyError("mine")

    def stop(iterate):
        raise StopIteration

    with pytest.raises(KeyError, match="mine"):
        so.minimize(quartic, jnp.zeros(2), callback=refuse)
    assert so.minimize(quartic, jnp.zeros(2), callback=stop).status == so.Status.STOPPED


@pytest.mark.slow
def test_callbacks_work_within_transformations(x64):
    seen = []
    call = lambda it: seen.append(it) or bool(it.value < 1e-2)
    solve = lambda c: so.minimize(quartic, jnp.zeros(2), args=(c,), callback=call)
    found = jax.jit(jax.vmap(solve))(jnp.array([0.05, 1.0, 2.0]))
    assert all(found.status == so.Status.STOPPED) and all(found.value < 1e-2)
    assert len(seen) == int(jnp.sum(found.steps + 1))  # none of a lane that has ended
    square = lambda c: so.minimize(lambda p: jnp.sum((p - c) ** 2), jnp.zeros(2), callback=call)
    assert_close(jax.grad(lambda c: square(c).params[0])(1.0), 1.0)


def test_values_are_in_the_units_of_the_residual():
    seen, scale = [], 1e15  # so that squares of squares leave the range
    residual = lambda p: scale * (p - 1.0) ** 3
    solution = so.least_squares(residual, jnp.zeros(2), callback=lambda it: seen.append(it))
    assert solution.unit != 1
    np.testing.assert_allclose(seen[0].value, scale**2, rtol=1e-6)
