"""Gauss-Newton: exact for linear models, and as fast as Newton where residuals vanish."""

import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding
from training import points_of

import secondorder as so

X = np.linspace(0.0, 2.0, 9)


@pytest.mark.quick(1)
@pytest.mark.parametrize("rate", [None, 1.0])
def test_linear_least_squares_is_solved_in_one_step(x64, rate):
    features = np.stack([np.ones(9), X, X**2], axis=1)
    target = np.exp(X)
    f = so.sum_of_squares(lambda p: features @ p - target)
    points = points_of(so.gauss_newton(rate), f, jnp.zeros(3), 1)
    expected = np.linalg.lstsq(features, target)[0]
    assert_close(points[1], expected, np.linalg.cond(features) ** 2)


def test_a_mean_over_examples_gives_the_same_step_as_the_sum(x64):
    target = np.exp(X)
    model = lambda p: jnp.exp(p[0] * X) + p[1]
    start = jnp.array([0.5, 0.5])
    mean = points_of(so.gauss_newton(1.0), so.compose(so.squared_error(target), model), start, 2)
    total = points_of(
        so.gauss_newton(1.0), so.sum_of_squares(lambda p: model(p) - target), start, 2
    )
    assert_close(mean, total, 100)  # the columns have condition 10


def test_where_the_residuals_vanish_the_digits_double(x64):
    f = so.sum_of_squares(lambda p: jnp.exp(p[0] * X) * p[1] - 2 * np.exp(0.7 * X))
    points = points_of(so.gauss_newton(1.0), f, jnp.array([0.6, 1.9]), 5)
    errors = np.linalg.norm(points - [0.7, 2.0], axis=1)
    slopes = np.stack([2 * X, np.ones(9)], axis=1) * np.exp(0.7 * X)[:, None]
    tolerance = rounding(np.linalg.cond(slopes), norm=2)
    for before, after in zip(errors[1:-1], errors[2:], strict=True):
        assert after < 3 * before**2 + tolerance
    assert errors[-1] < tolerance


def test_for_a_likelihood_it_is_newtons_method(x64):
    # In the natural parameters of a linear model the Gauss-Newton matrix is the Hessian.
    labels = jnp.array([0.0, 0, 1, 0, 1, 0, 1, 1, 1])
    f = so.compose(so.sigmoid_cross_entropy(labels), lambda p: p[0] + p[1] * X)
    start = jnp.array([0.1, -0.2])
    np.testing.assert_allclose(
        points_of(so.gauss_newton(1.0), f, start, 3),
        points_of(so.newton(1.0), f, start, 3),
        rtol=1e-8,
    )


def test_a_parameter_that_does_nothing_stays_where_it_is():
    f = so.sum_of_squares(lambda p: jnp.stack([p[0] - 1, 2 * (p[0] - 1)]) + 0 * p[1])
    points = points_of(so.gauss_newton(), f, jnp.array([0.0, 5.0]), 3)
    np.testing.assert_allclose(points[-1], [1.0, 5.0], atol=1e-5)
