"""Self-scaled quasi-Newton methods: their steps in other units, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import secondorder as so

METHODS = (so.ssbfgs, so.ssbroyden)
CURVED = np.geomspace(1.0, 1e6, 30)


def rosenbrock(p):
    return jnp.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)


@pytest.mark.parametrize("make", METHODS)
def test_the_unit_of_the_objective_and_of_the_parameters_changes_no_step(make, x64):
    start = jnp.array([-1.2, 1.0, -0.5])

    @jax.jit
    def walk(factor, unit):
        f = lambda p: factor * rosenbrock(p / unit)
        found = so.minimize(f, unit * start, make(), max_steps=12)
        return found.params / unit, found.steps, found.evaluations.gradients

    expected = walk(1.0, 1.0)
    for factor, unit in ((2.0**40, 1.0), (2.0**-40, 1.0), (1.0, 2.0**20), (2.0**-30, 2.0**-20)):
        found = walk(factor, unit)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        assert found[1:] == expected[1:]


@pytest.mark.slow
def test_an_ill_conditioned_quadratic_takes_half_the_steps_of_bfgs(x64):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0]
    matrix = jnp.asarray(turn * CURVED @ turn.T)
    steps = {}
    for name in ("bfgs", "ssbfgs", "ssbroyden"):
        found = so.minimize(lambda p: 0.5 * p @ matrix @ p + 1, jnp.ones(30), name)
        assert bool(found.success), name
        steps[name] = int(found.steps)
    assert max(steps["ssbfgs"], steps["ssbroyden"]) < 0.6 * steps["bfgs"], steps


@pytest.mark.quick(1)
@pytest.mark.parametrize("make", METHODS)
def test_bounds_hold_and_the_rest_is_solved(make, x64):
    found = so.minimize(
        rosenbrock, jnp.array([-1.2, 1.0, -0.5]), make(), bounds=(-2.0, jnp.array([0.5, 2.0, 2.0]))
    )
    assert bool(found.success) and found.params[0] == 0.5
    slope = jax.grad(rosenbrock)(found.params)
    assert slope[0] < 0 and np.all(np.abs(slope[1:]) < 1e-5)
