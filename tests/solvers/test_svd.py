"""Least squares in the singular basis, against NumPy."""

import numpy as np
import pytest
from quadratics import Rows, run

import secondorder as so

S = so.solvers
RNG = np.random.default_rng(3)
TALL, WIDE = RNG.normal(size=(7, 4)), RNG.normal(size=(3, 5))


def scaled(rows):
    return rows / np.linalg.norm(rows, axis=0), np.linalg.norm(rows, axis=0)


@pytest.mark.parametrize("rows", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("damping", [0.0, 1e-3, 10.0])
def test_svd_solves_the_damped_problem_in_mores_scaling(rows, damping, x64):
    r = RNG.normal(size=rows.shape[0])
    step, _ = run(S.svd(), Rows(rows, r), damping)
    a, d = scaled(rows)
    stacked = np.vstack([a, np.sqrt(damping) * np.eye(a.shape[1])])
    y = np.linalg.lstsq(stacked, -np.concatenate([r, np.zeros(a.shape[1])]), rcond=None)[0]
    np.testing.assert_allclose(step.direction, y / d, rtol=1e-9, atol=1e-12)
    change = rows @ step.direction
    np.testing.assert_allclose(step.predicted, change @ (r + change / 2), rtol=1e-9)
    assert step.jacobians == 1


def test_svd_agrees_with_qr_also_for_an_altered_gradient(x64):
    r = RNG.normal(size=7)
    grad = TALL.T @ r + np.array([0.3, 0.0, -1.0, 2.0])
    for damping in (1e-4, 1.0):
        one, _ = run(S.svd(), Rows(TALL, r, grad), damping)
        other, _ = run(S.qr(), Rows(TALL, r, grad), damping)
        np.testing.assert_allclose(one.direction, other.direction, rtol=1e-8)


def test_of_many_solutions_svd_takes_the_shortest(x64):
    rows = np.outer(RNG.normal(size=6), [1.0, 1.0, 1.0])
    r = RNG.normal(size=6)
    step, _ = run(S.svd(), Rows(rows, r))
    np.testing.assert_allclose(step.direction, np.linalg.lstsq(rows, -r, rcond=None)[0], rtol=1e-9)
    assert step.stopped == S.Stop.SINGULAR


@pytest.mark.parametrize("rows", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("radius", [1e-3, 0.3, 1e3])
def test_the_region_step_is_best_within_its_scaled_radius(rows, radius, x64):
    r = RNG.normal(size=rows.shape[0])
    step, _ = run(S.svd_region(), Rows(rows, r), radius)
    a, d = scaled(rows)
    y = step.direction * d
    assert np.linalg.norm(y) <= radius * (1 + 1e-9)
    np.testing.assert_allclose(step.length, np.linalg.norm(y), rtol=1e-9)
    if not step.boundary:
        shortest = np.linalg.lstsq(a, -r, rcond=None)[0]
        np.testing.assert_allclose(y, shortest, rtol=1e-8, atol=1e-12)
        return
    # On the boundary: Aᵀ(Ay + r) = −λ y with λ > 0
    slope = a.T @ (a @ y + r)
    multiplier = -slope @ y / (y @ y)
    assert multiplier > 0
    np.testing.assert_allclose(slope, -multiplier * y, rtol=1e-6, atol=1e-9)


def test_the_dogleg_runs_from_the_gradient_through_the_cauchy_point_to_gauss_newton(x64):
    r = RNG.normal(size=7)
    a, d = scaled(TALL)
    g = a.T @ r
    cauchy = -g * (g @ g) / np.sum((a @ g) ** 2)
    newton = np.linalg.lstsq(a, -r, rcond=None)[0]
    take = lambda radius: run(S.dogleg(), Rows(TALL, r), radius)[0].direction * d
    tiny = 0.5 * np.linalg.norm(cauchy)
    np.testing.assert_allclose(take(tiny), -g / np.linalg.norm(g) * tiny, rtol=1e-9)
    np.testing.assert_allclose(take(2 * np.linalg.norm(newton)), newton, rtol=1e-9)
    middle = 0.5 * (np.linalg.norm(cauchy) + np.linalg.norm(newton))
    y = take(middle)
    np.testing.assert_allclose(np.linalg.norm(y), middle, rtol=1e-9)
    leg = newton - cauchy
    tau = (y - cauchy) @ leg / (leg @ leg)
    np.testing.assert_allclose(y, cauchy + tau * leg, atol=1e-9)
    assert 0 < tau < 1


@pytest.mark.parametrize("solver", [S.svd(), S.svd_region(), S.dogleg()])
def test_nan_rows_are_flagged_and_end(solver):
    rows = np.full((4, 2), np.nan, np.float32)
    step, _ = run(solver, Rows(rows, np.ones(4, np.float32)), 1.0)
    assert step.stopped == S.Stop.NONFINITE
