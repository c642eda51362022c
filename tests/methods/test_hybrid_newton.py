"""Gauss-Newton where the residuals vanish, Newton where they do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so

FAR = np.array([25.0, 5.0, -5.0, -1.0])


def brown_dennis(p):
    """Twenty residuals that cannot vanish: ½ Σ r² = 42911.1 at the minimum."""
    t = jnp.arange(1.0, 21.0) / 5
    first = p[0] + t * p[1] - jnp.exp(t)
    return first**2 + (p[2] + p[3] * jnp.sin(t) - jnp.cos(t)) ** 2


@functools.cache
def solved_in(parameters=1.0, residuals=1.0):
    """Brown and Dennis's problem from its standard start, in other units."""
    units = jnp.array([parameters, 1 / parameters] * 2)
    residual = lambda z: residuals * brown_dennis(units * z)
    found = so.least_squares(residual, FAR / units, so.hybrid_newton())
    return found, found.params * units


def rosenbrock(p):
    return jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])


@pytest.mark.slow
def test_residuals_that_stay_large_are_met_with_the_hessian(x64):
    hybrid, _ = solved_in()
    assert bool(hybrid.success)
    assert_close(hybrid.value, 85822.20162635628 / 2)
    assert int(hybrid.steps) <= 20
    gauss_newton = so.least_squares(brown_dennis, jnp.asarray(FAR))
    assert int(gauss_newton.steps) > 5 * int(hybrid.steps)


def taken(residual, p, count):
    """The matrices of the first steps, and whether they are the Hessian."""
    f = so.sum_of_squares(residual)
    curvature = so.curvature.hybrid()
    state, flags = curvature.init(p), []
    for _ in range(count):
        grad = jax.grad(f)(p)
        operator, state = curvature.update(grad, state, p, f)
        matrix = so.dense(operator, p)
        choice = so.hessian if bool(state.newton) else so.ggn
        assert_close(matrix, so.dense(choice(f, p), p))
        assert_close(operator.mv(p), matrix @ p, norm=np.linalg.norm(matrix, 2) * np.linalg.norm(p))
        flags.append(bool(state.newton))
        p = p - np.linalg.solve(matrix, grad)
    return flags


def test_it_begins_with_gauss_newton_and_keeps_it_while_the_objective_halves(x64):
    assert taken(rosenbrock, jnp.array([0.95, 0.9]), 2) == [False, False]


def test_it_takes_the_hessian_after_a_step_that_gained_little(x64):
    stuck = lambda p: jnp.stack([p[0] - 1, p[0] + 1])  # the first step takes away 14 %
    assert taken(stuck, jnp.array([0.4]), 3) == [False, True, True]


def saddle(p):
    """½‖r‖² has its minima at (0, ±1); at (0, 0) the gradient vanishes, and so does a column."""
    return jnp.stack([p[0], p[1] ** 2 - 1])


@pytest.mark.quick(1)
@pytest.mark.parametrize("start", [(1.0, 0.0), (1e3, 1e-6)])
def test_a_saddle_is_left_where_gauss_newton_alone_would_stay(x64, start):
    found = so.least_squares(saddle, jnp.array(start), so.hybrid_newton())
    assert bool(found.success)
    np.testing.assert_allclose(jnp.abs(found.params), [0, 1], atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("units", [1e6, 1e-6])
def test_rescaled_parameters_and_residuals_take_the_same_steps(x64, units):
    (plain, expected), (other, found) = solved_in(), solved_in(units, units)
    assert abs(int(plain.steps) - int(other.steps)) <= 1  # the units are no powers of two
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_fewer_residuals_than_parameters_are_left_to_gauss_newton(x64):
    found = so.least_squares(lambda p: jnp.sum(p**2)[None] - 1, jnp.ones(3), so.hybrid_newton())
    assert bool(found.success)
    np.testing.assert_allclose(jnp.sum(found.params**2), 1, rtol=1e-7)


def test_a_plain_function_is_refused_with_a_sentence():
    with pytest.raises(TypeError, match="loss and model"):
        so.minimize(lambda p: jnp.sum(p**2), jnp.ones(2), so.hybrid_newton())
