"""Dense solvers in the eigenbasis, against brute force."""

import numpy as np
import pytest
from quadratics import Dense, random_matrix, run

import secondorder as so

S = so.solvers
INDEFINITE = random_matrix([-2.0, 0.5, 1.0, 4.0])
DEFINITE = random_matrix([0.1, 0.5, 1.0, 4.0])
GRAD = np.array([1.0, -2.0, 0.5, 3.0])


def model_value(matrix, d):
    return GRAD @ d + 0.5 * d @ matrix @ d


def test_eigen_is_newton_where_definite_and_takes_magnitudes_where_not(x64):
    step, _ = run(S.eigen(), Dense(DEFINITE, GRAD))
    np.testing.assert_allclose(step.direction, -np.linalg.solve(DEFINITE, GRAD), rtol=1e-10)
    assert step.stopped == S.Stop.SOLVED
    w, v = np.linalg.eigh(INDEFINITE)
    step, _ = run(S.eigen(), Dense(INDEFINITE, GRAD), 0.3)
    expected = -v @ ((v.T @ GRAD) / (np.abs(w) + 0.3))
    np.testing.assert_allclose(step.direction, expected, rtol=1e-10)
    assert step.stopped == S.Stop.SHIFTED


@pytest.mark.parametrize("solver", [S.exact_region(), S.gltr(4, 1e-14)], ids=["exact", "gltr"])
@pytest.mark.parametrize("matrix", [DEFINITE, INDEFINITE], ids=["definite", "indefinite"])
@pytest.mark.parametrize("radius", [0.1, 1.0, 100.0])
def test_no_point_of_the_region_is_better(solver, matrix, radius, x64):
    step, _ = run(solver, Dense(matrix, GRAD), radius)
    assert np.linalg.norm(step.direction) <= radius * (1 + 1e-9)
    best = model_value(matrix, step.direction)
    np.testing.assert_allclose(step.predicted, best, rtol=1e-9)
    rng = np.random.default_rng(1)
    for _ in range(300):
        d = rng.normal(size=4)
        d *= radius * rng.uniform() ** 0.25 / np.linalg.norm(d)
        assert model_value(matrix, d) >= best - 1e-9 * abs(best)
    nearby = step.direction + 1e-3 * radius * rng.normal(size=(300, 4))
    nearby *= np.minimum(1, radius / np.linalg.norm(nearby, axis=1))[:, None]
    assert min(model_value(matrix, d) for d in nearby) >= best - 1e-9 * abs(best)


@pytest.mark.parametrize(
    "solver", [S.exact_cubic(), S.krylov_cubic(4, 1e-14)], ids=["exact", "krylov"]
)
@pytest.mark.parametrize("matrix", [DEFINITE, INDEFINITE], ids=["definite", "indefinite"])
@pytest.mark.parametrize("sigma", [0.01, 1.0, 100.0])
def test_no_point_has_a_lower_cubic_model(solver, matrix, sigma, x64):
    step, _ = run(solver, Dense(matrix, GRAD), sigma)
    value = lambda d: model_value(matrix, d) + sigma / 3 * np.linalg.norm(d) ** 3
    best = value(step.direction)
    rng = np.random.default_rng(2)
    for scale in (1e-3, 1e-1, 1.0, 3.0):
        for _ in range(100):
            d = step.direction + scale * np.linalg.norm(step.direction) * rng.normal(size=4)
            assert value(d) >= best - 1e-9 * abs(best)


def test_a_krylov_space_of_few_vectors_still_decreases_the_model(x64):
    matrix = random_matrix(np.logspace(-3, 3, 30))
    grad = np.random.default_rng(0).normal(size=30)
    step, _ = run(S.gltr(6), Dense(matrix, grad), np.inf)
    assert step.predicted < 0 and step.iterations == 6
    assert step.stopped == S.Stop.MAX_STEPS
    residual = np.linalg.norm(matrix @ step.direction + grad) / np.linalg.norm(grad)
    np.testing.assert_allclose(step.residual, residual, rtol=1e-6)


@pytest.mark.parametrize("solver", [S.eigen(), S.exact_region(), S.exact_cubic(), S.gltr()])
def test_a_gradient_or_curvature_of_nan_is_flagged_and_ends(solver):
    step, _ = run(solver, Dense(np.eye(3, dtype=np.float32), np.full(3, np.nan, np.float32)), 1.0)
    assert step.stopped == S.Stop.NONFINITE
    matrix = np.full((3, 3), np.nan, np.float32)
    step, _ = run(solver, Dense(matrix, np.ones(3, np.float32)), 1.0)
    assert step.stopped == S.Stop.NONFINITE
