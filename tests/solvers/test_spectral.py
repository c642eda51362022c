"""Dense solvers in the eigenbasis, against brute force."""

import jax.numpy as jnp
import numpy as np
import pytest
from quadratics import Dense, random_matrix, run
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.solvers._direct import shift_scaling

S = so.solvers
INDEFINITE = random_matrix([-2.0, 0.5, 1.0, 4.0])
DEFINITE = random_matrix([0.1, 0.5, 1.0, 4.0])
GRAD = np.array([1.0, -2.0, 0.5, 3.0])


def model_value(matrix, d):
    return GRAD @ d + 0.5 * d @ matrix @ d


def test_eigen_is_newton_where_definite_and_takes_magnitudes_where_not(x64):
    step, _ = run(S.eigen(), Dense(DEFINITE, GRAD))
    assert_close(step.direction, -np.linalg.solve(DEFINITE, GRAD), 40)  # 4 to 0.1
    assert step.report.stopped == S.Stop.SOLVED
    w, v = np.linalg.eigh(INDEFINITE)
    step, _ = run(S.eigen(), Dense(INDEFINITE, GRAD), 0.3)
    expected = -v @ ((v.T @ GRAD) / (np.abs(w) + 0.3))
    assert_close(step.direction, expected, 40)
    assert step.report.stopped == S.Stop.SHIFTED


def own_units(matrix):
    """What the dense solvers of a region measure a step's entries in."""
    return np.sqrt(np.asarray(shift_scaling(jnp.asarray(matrix))))


def no_units(matrix):
    return np.ones(len(matrix))


@pytest.mark.quick(4)
@pytest.mark.parametrize(
    "solver, units",
    [(S.exact_region(), own_units), (S.gltr(4, 1e-14), no_units)],
    ids=["exact", "gltr"],
)
@pytest.mark.parametrize("matrix", [DEFINITE, INDEFINITE], ids=["definite", "indefinite"])
@pytest.mark.parametrize("radius", [0.1, 1.0, 100.0])
def test_no_point_of_the_region_is_better(solver, units, matrix, radius, x64):
    step, _ = run(solver, Dense(matrix, GRAD), radius)
    scale = units(matrix)
    assert_close(step.length, np.linalg.norm(scale * step.direction))
    assert step.length <= radius * (1 + 1e-9)
    best = model_value(matrix, step.direction)
    assert_close(step.predicted, best, 40)
    rng = np.random.default_rng(1)
    for _ in range(300):
        d = rng.normal(size=4)
        d *= radius * rng.uniform() ** 0.25 / np.linalg.norm(d)
        assert model_value(matrix, d / scale) >= best - 1e-9 * abs(best)
    nearby = scale * step.direction + 1e-3 * radius * rng.normal(size=(300, 4))
    nearby *= np.minimum(1, radius / np.linalg.norm(nearby, axis=1))[:, None]
    assert min(model_value(matrix, d / scale) for d in nearby) >= best - 1e-9 * abs(best)


@pytest.mark.quick(4)
@pytest.mark.parametrize(
    "solver, units",
    [(S.exact_cubic(), own_units), (S.krylov_cubic(4, 1e-14), no_units)],
    ids=["exact", "krylov"],
)
@pytest.mark.parametrize("matrix", [DEFINITE, INDEFINITE], ids=["definite", "indefinite"])
@pytest.mark.parametrize("sigma", [0.01, 1.0, 100.0])
def test_no_point_has_a_lower_cubic_model(solver, units, matrix, sigma, x64):
    step, _ = run(solver, Dense(matrix, GRAD), sigma)
    length = lambda d: np.linalg.norm(units(matrix) * d)
    value = lambda d: model_value(matrix, d) + sigma / 3 * length(d) ** 3
    best = value(step.direction)
    rng = np.random.default_rng(2)
    for scale in (1e-3, 1e-1, 1.0, 3.0):
        for _ in range(100):
            d = step.direction + scale * np.linalg.norm(step.direction) * rng.normal(size=4)
            assert value(d) >= best - 1e-9 * abs(best)


@pytest.mark.parametrize("solver", [S.exact_region(), S.exact_cubic()], ids=["region", "cubic"])
@pytest.mark.parametrize("matrix", [DEFINITE, INDEFINITE], ids=["definite", "indefinite"])
@pytest.mark.parametrize("value", [1.0, 2.0**66, 2.0**-66])
def test_another_unit_of_parameters_or_values_rescales_the_step_alone(solver, matrix, value):
    # Powers of four, whose roots are exact: nothing is rounded otherwise.
    units = np.array([4.0**8, 1.0, 4.0**-9, 4.0**4])
    step, _ = run(solver, Dense(np.float32(matrix), np.float32(GRAD)), np.float32(0.5))
    other = Dense(
        np.float32(value * units[:, None] * matrix * units), np.float32(value * units * GRAD)
    )
    # ‖D d‖ grows with the root of the value; σ is a value over a length to the third.
    scale = 0.5 * (np.sqrt(value) if solver.reads == "radius" else 1 / np.sqrt(value))
    rescaled, _ = run(solver, other, np.float32(scale))
    error = np.linalg.norm(units * rescaled.direction - step.direction)
    assert error <= rounding(40, np.linalg.norm(step.direction), np.float32)


def test_a_krylov_space_of_few_vectors_still_decreases_the_model(x64):
    matrix = random_matrix(np.logspace(-3, 3, 30))
    grad = np.random.default_rng(0).normal(size=30)
    step, _ = run(S.gltr(6), Dense(matrix, grad), np.inf)
    assert step.predicted < 0 and step.report.iterations == 6
    assert step.report.stopped == S.Stop.MAX_STEPS
    residual = np.linalg.norm(matrix @ step.direction + grad) / np.linalg.norm(grad)
    np.testing.assert_allclose(step.report.residual, residual, rtol=1e-6)


@pytest.mark.parametrize("solver", [S.eigen(), S.exact_region(), S.exact_cubic(), S.gltr()])
def test_a_gradient_or_curvature_of_nan_is_flagged_and_ends(solver):
    step, _ = run(solver, Dense(np.eye(3, dtype=np.float32), np.full(3, np.nan, np.float32)), 1.0)
    assert step.report.stopped == S.Stop.NONFINITE
    matrix = np.full((3, 3), np.nan, np.float32)
    step, _ = run(solver, Dense(matrix, np.ones(3, np.float32)), 1.0)
    assert step.report.stopped == S.Stop.NONFINITE
