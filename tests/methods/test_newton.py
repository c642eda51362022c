"""Newton: one step on a quadratic, quadratic convergence, invariance, and no way up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding
from training import points_of

import secondorder as so

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])


@pytest.mark.quick(1)
@pytest.mark.parametrize("rate", [None, 1.0])
def test_a_quadratic_is_solved_in_one_step(x64, rate):
    target = jnp.array([1.0, -2.0, 0.5])
    f = lambda p: 0.5 * (p - target) @ MATRIX @ (p - target)
    found = points_of(so.newton(rate), f, jnp.ones(3), 1)[1]
    assert_close(found, target, np.linalg.cond(MATRIX))


@pytest.mark.slow
def test_rate_and_damping_enter_as_the_formula_says(x64):
    f = lambda p: jnp.sum(jnp.cosh(p)) + 0.5 * p @ MATRIX @ p
    p = jnp.array([0.3, -0.2, 1.0])
    grad, hessian = jax.grad(f)(p), jax.hessian(f)(p)
    damped = hessian + 0.7 * np.eye(3)
    expected = -0.5 * np.linalg.solve(damped, grad)
    moved = points_of(so.newton(0.5, damping=0.7), f, p, 1)
    assert_close(moved[1] - moved[0], expected, np.linalg.cond(damped))


def test_the_digits_double_at_every_step_near_the_minimum(x64):
    f = lambda p: jnp.sum(jnp.exp(p) - p)  # Newton's error is about half its square
    errors = np.abs(points_of(so.newton(1.0), f, jnp.array([0.5]), 5))[:, 0]
    for before, after in zip(errors[:-1], errors[1:], strict=True):
        assert after < 0.6 * before**2 + rounding()
    assert errors[-1] < rounding()


@pytest.mark.quick(1)
@pytest.mark.parametrize("units", [[1e-6, 1.0, 1e6], [1e3, 1e3, 1e-3]])
def test_a_linear_change_of_the_parameters_changes_no_value(x64, units):
    units = jnp.array(units)
    f = lambda p: jnp.sum(jnp.cosh(p)) + 0.5 * p @ MATRIX @ p
    start = jnp.array([1.0, -2.0, 0.5])
    path = points_of(so.newton(), f, start, 4)
    rescaled = points_of(so.newton(), lambda q: f(q / units), start * units, 4)
    assert_close(rescaled / units, path, np.linalg.cond(MATRIX))


def test_it_descends_from_where_the_curvature_is_negative(x64):
    f = lambda p: jnp.sum(p**4) - 3 * jnp.sum(p**2) + p[0]
    path = points_of(so.newton(), f, jnp.array([0.1, -0.2]), 15)
    values = [float(f(p)) for p in path]
    assert jax.hessian(f)(path[0])[0, 0] < 0
    noise = rounding(norm=max(map(abs, values)))
    assert all(after < before + noise for before, after in zip(values, values[1:], strict=False))
    assert np.linalg.eigvalsh(jax.hessian(f)(path[-1]))[0] > 0
    np.testing.assert_allclose(jax.grad(f)(path[-1]), 0, atol=1e-6)


def test_the_line_search_makes_it_converge_where_full_steps_diverge(x64):
    f = lambda p: jnp.sum(jnp.sqrt(1 + p**2))
    start = jnp.array([3.0, -2.0])
    points = functools.partial(points_of, f=f, p=start)
    assert np.abs(points(so.newton(1.0), count=3)[-1]).max() > 1e3
    np.testing.assert_allclose(points(so.newton(), count=15)[-1], 0, atol=1e-6)
