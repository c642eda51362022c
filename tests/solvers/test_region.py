"""The trust region by triangular factors, against NumPy and the region by singular values."""

import numpy as np
import pytest
from quadratics import Rows, run

import secondorder as so

S = so.solvers
RNG = np.random.default_rng(3)
SHAPES = {
    "tall": RNG.normal(size=(7, 4)),
    "square": RNG.normal(size=(4, 4)),
    "wide": RNG.normal(size=(3, 5)),
    "of bad units": RNG.normal(size=(7, 4)) * 10.0 ** np.array([-6, 0, 3, 6]),
}
shapes = pytest.mark.parametrize("shape", SHAPES)


def scaled(rows):
    norms = np.linalg.norm(rows, axis=0)
    return rows / norms, norms


@shapes
@pytest.mark.parametrize("radius", [1e-6, 1e-3, 0.3, 1e3, np.inf])
def test_the_step_is_the_damped_one_whose_length_is_the_radius_within_a_tenth(x64, shape, radius):
    rows = SHAPES[shape]
    r = RNG.normal(size=rows.shape[0])
    step, _ = run(S.qr_region(), Rows(rows, r), radius)
    a, d = scaled(rows)
    y = step.direction * d
    np.testing.assert_allclose(step.length, np.linalg.norm(y), rtol=1e-9)
    change = a @ y
    np.testing.assert_allclose(step.predicted, change @ (r + change / 2), rtol=1e-9)
    shortest = np.linalg.lstsq(a, -r, rcond=None)[0]
    assert bool(step.boundary) == (np.linalg.norm(shortest) > 1.1 * radius)
    if not step.boundary:
        np.testing.assert_allclose(y, shortest, rtol=1e-8, atol=1e-12)
        assert step.stopped == S.Stop.SOLVED
        return
    assert 0.9 * radius <= np.linalg.norm(y) <= 1.1 * radius
    assert step.stopped == S.Stop.BOUNDARY
    slope = a.T @ (a @ y + r)  # = −λ y with λ > 0
    multiplier = -slope @ y / (y @ y)
    assert multiplier > 0
    np.testing.assert_allclose(slope, -multiplier * y, rtol=1e-6, atol=1e-9)


@shapes
def test_an_altered_gradient_is_answered_as_by_singular_values(x64, shape):
    rows = SHAPES[shape]
    r = RNG.normal(size=rows.shape[0])
    grad = rows.T @ r + np.linalg.norm(rows, axis=0) * RNG.normal(size=rows.shape[1])
    one, _ = run(S.qr_region(), Rows(rows, r, grad), np.inf)
    other, _ = run(S.svd_region(), Rows(rows, r, grad), np.inf)
    np.testing.assert_allclose(one.direction, other.direction, rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_deficient_rank_the_step_is_nearly_the_shortest_and_says_so(x64, dtype):
    rows = np.outer(RNG.normal(size=6), [1.0, 1.0, 1.0]).astype(dtype)
    r = (0.1 * RNG.normal(size=6) - rows @ np.ones(3)).astype(dtype)
    step, _ = run(S.qr_region(), Rows(rows, r), dtype(np.inf))
    shortest = np.linalg.lstsq(rows, -r, rcond=None)[0]
    np.testing.assert_allclose(step.direction, shortest, rtol=1e-2 if dtype is np.float64 else 0.1)
    assert step.stopped == S.Stop.SINGULAR
    step, _ = run(S.qr_region(), Rows(0 * rows, r), dtype(1.0))
    np.testing.assert_array_equal(step.direction, 0)


def test_rows_that_are_not_finite_give_no_step(x64):
    rows = SHAPES["tall"].copy()
    rows[1, 2] = np.nan
    step, _ = run(S.qr_region(), Rows(rows, np.ones(7)), 1.0)
    assert step.stopped == S.Stop.NONFINITE


def test_a_gradient_of_zero_asks_for_no_step(x64):
    step, _ = run(S.qr_region(), Rows(SHAPES["tall"], np.zeros(7)), 1.0)
    np.testing.assert_array_equal(step.direction, 0)
    assert not step.boundary
