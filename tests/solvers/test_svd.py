"""Least squares in the singular basis, against NumPy."""

import numpy as np
import pytest
from quadratics import Rows, run
from tolerances import assert_close, condition_of

import secondorder as so

S = so.solvers
RNG = np.random.default_rng(3)
TALL, WIDE = RNG.normal(size=(7, 4)), RNG.normal(size=(3, 5))
SHAPES = {
    "tall": TALL,
    "square": RNG.normal(size=(4, 4)),
    "wide": WIDE,
    "of bad units": RNG.normal(size=(7, 4)) * 10.0 ** np.array([-6, 0, 3, 6]),
}


def scaled(rows):
    return rows / np.linalg.norm(rows, axis=0), np.linalg.norm(rows, axis=0)


@pytest.mark.quick(2)
@pytest.mark.parametrize("rows", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("damping", [0.0, 1e-3, 10.0])
def test_svd_solves_the_damped_problem_in_mores_scaling(rows, damping, x64):
    r = RNG.normal(size=rows.shape[0])
    step, _ = run(S.svd(), Rows(rows, r), damping)
    a, d = scaled(rows)
    stacked = np.vstack([a, np.sqrt(damping) * np.eye(a.shape[1])])
    y = np.linalg.lstsq(stacked, -np.concatenate([r, np.zeros(a.shape[1])]), rcond=None)[0]
    kappa = condition_of(stacked)
    size = np.linalg.norm(y) + np.linalg.norm(r) / np.linalg.norm(stacked, 2)
    assert_close(step.direction * d, y, kappa**2, norm=size)
    change = rows @ step.direction
    assert_close(step.predicted, change @ (r + change / 2), kappa, norm=r @ r)
    assert step.report.jacobians == 1


def test_svd_agrees_with_qr_also_for_an_altered_gradient(x64):
    r = RNG.normal(size=7)
    grad = TALL.T @ r + np.array([0.3, 0.0, -1.0, 2.0])
    for damping in (1e-4, 1.0):
        one, _ = run(S.svd(), Rows(TALL, r, grad), damping)
        other, _ = run(S.qr(), Rows(TALL, r, grad), damping)
        np.testing.assert_allclose(one.direction, other.direction, rtol=1e-8)


def test_a_region_counts_what_was_added_to_the_gradient(x64):
    r = RNG.normal(size=7)
    a, d = scaled(TALL)
    altered = TALL.T @ r + np.array([0.3, 0.0, -1.0, 2.0])
    step, _ = run(S.svd_region(), Rows(TALL, r, altered), 0.3)
    y = step.direction * d
    assert 0.27 <= np.linalg.norm(y) <= 0.33
    slope = a.T @ (a @ y) + altered / d  # = −λ y with λ > 0
    multiplier = -slope @ y / (y @ y)
    assert multiplier > 0
    assert_close(slope, -multiplier * y, condition_of(a) ** 2, norm=np.linalg.norm(altered / d))
    np.testing.assert_allclose(step.predicted, altered / d @ y + 0.5 * np.sum((a @ y) ** 2))


def test_of_many_solutions_svd_takes_the_shortest(x64):
    rows = np.outer(RNG.normal(size=6), [1.0, 1.0, 1.0])
    r = RNG.normal(size=6)
    step, _ = run(S.svd(), Rows(rows, r))
    assert_close(step.direction, np.linalg.lstsq(rows, -r, rcond=1e-10)[0])
    assert step.report.stopped == S.Stop.SINGULAR


@pytest.mark.quick(5)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [1e-6, 1e-3, 0.3, 1e3, np.inf])
def test_the_step_is_the_damped_one_whose_length_is_the_radius_within_a_tenth(x64, shape, radius):
    rows = SHAPES[shape]
    r = RNG.normal(size=rows.shape[0])
    step, _ = run(S.svd_region(), Rows(rows, r), radius)
    a, d = scaled(rows)
    y = step.direction * d
    assert_close(step.length, np.linalg.norm(y))
    change, kappa = a @ y, condition_of(a)
    size = np.linalg.norm(change) * np.linalg.norm(r)
    assert_close(step.predicted, change @ (r + change / 2), kappa, norm=size)
    shortest = np.linalg.lstsq(a, -r, rcond=None)[0]
    outside = np.linalg.norm(shortest) > 1.1 * radius
    if not outside:
        assert_close(y, shortest, kappa**2)
        assert step.report.stopped == (S.Stop.SINGULAR if shape == "wide" else S.Stop.SOLVED)
        return
    assert 0.9 * radius <= np.linalg.norm(y) <= 1.1 * radius
    assert step.report.stopped == S.Stop.BOUNDARY
    slope = a.T @ (a @ y + r)  # = −λ y with λ > 0
    multiplier = -slope @ y / (y @ y)
    assert multiplier > 0
    assert_close(slope, -multiplier * y, kappa**2, norm=np.linalg.norm(a.T @ r))


@pytest.mark.quick(1)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_deficient_rank_the_whole_region_step_is_the_shortest_and_says_so(x64, dtype):
    rows = np.outer(RNG.normal(size=6), [1.0, 1.0, 1.0]).astype(dtype)
    r = (0.1 * RNG.normal(size=6) - rows @ np.ones(3)).astype(dtype)
    step, _ = run(S.svd_region(), Rows(rows, r), dtype(np.inf))
    shortest = np.linalg.lstsq(rows, -r, rcond=None)[0]
    np.testing.assert_allclose(step.direction, shortest, rtol=1e3 * np.finfo(dtype).eps)
    assert step.report.stopped == S.Stop.SINGULAR
    step, _ = run(S.svd_region(), Rows(0 * rows, r), dtype(1.0))
    np.testing.assert_array_equal(step.direction, 0)


def test_a_gradient_of_zero_asks_for_no_step(x64):
    step, _ = run(S.svd_region(), Rows(TALL, np.zeros(7)), 1.0)
    np.testing.assert_array_equal(step.direction, 0)
    assert step.length == 0


def test_the_dogleg_runs_from_the_gradient_through_the_cauchy_point_to_gauss_newton(x64):
    r = RNG.normal(size=7)
    a, d = scaled(TALL)
    kappa = condition_of(a)
    g = a.T @ r
    cauchy = -g * (g @ g) / np.sum((a @ g) ** 2)
    newton = np.linalg.lstsq(a, -r, rcond=None)[0]
    take = lambda radius: run(S.dogleg(), Rows(TALL, r), radius)[0].direction * d
    tiny = 0.5 * np.linalg.norm(cauchy)
    assert_close(take(tiny), -g / np.linalg.norm(g) * tiny, kappa)
    assert_close(take(2 * np.linalg.norm(newton)), newton, kappa**2)
    middle = 0.5 * (np.linalg.norm(cauchy) + np.linalg.norm(newton))
    y = take(middle)
    assert_close(np.linalg.norm(y), middle, kappa**2)
    leg = newton - cauchy
    tau = (y - cauchy) @ leg / (leg @ leg)
    assert_close(y, cauchy + tau * leg, kappa**2)
    assert 0 < tau < 1


@pytest.mark.parametrize("solver", [S.svd(), S.svd_region(), S.dogleg()])
def test_nan_rows_are_flagged_and_end(solver):
    rows = np.full((4, 2), np.nan, np.float32)
    step, _ = run(solver, Rows(rows, np.ones(4, np.float32)), 1.0)
    assert step.report.stopped == S.Stop.NONFINITE
