"""Truncated conjugate gradients in a trust region, against the path that CG takes in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from quadratics import Dense, random_matrix, run
from tolerances import assert_close, rounding

from secondorder.solvers import Stop, steihaug

COARSE, FINE = steihaug(), steihaug(100, forcing=1e-10)

GRAD = np.array([1.0, -2.0, 0.5, 3.0])
DEFINITE = random_matrix([1.0, 2.0, 5.0, 40.0])
INDEFINITE = random_matrix([-3.0, 2.0, 5.0, 40.0])


def cg_path(matrix, grad, corners=10) -> list[np.ndarray]:
    """The corners of the path: the iterates, and past a direction of negative curvature far out."""
    d, r = np.zeros_like(grad), -grad
    p, corner = r, [d]
    for _ in range(min(corners, len(grad))):
        bend = p @ matrix @ p
        if bend <= 0:
            return [*corner, d + 1e6 * p / np.linalg.norm(p)]
        alpha = (r @ r) / bend
        d, next_r = d + alpha * p, r - alpha * matrix @ p
        corner.append(d)
        p, r = next_r + (next_r @ next_r) / (r @ r) * p, next_r
    return corner


def first_crossing(corners, radius) -> np.ndarray:
    """Where the path first leaves the ball, by bisection; its end where it does not."""
    for a, b in zip(corners, corners[1:], strict=False):
        if np.linalg.norm(b) >= radius:
            low, high = 0.0, 1.0
            for _ in range(100):
                middle = (low + high) / 2
                inside = np.linalg.norm(a + middle * (b - a)) < radius
                low, high = (middle, high) if inside else (low, middle)
            return a + low * (b - a)
    return corners[-1]


def test_a_minimum_inside_is_newtons_step(x64):
    expected = -np.linalg.solve(DEFINITE, GRAD)
    for radius in (np.inf, 2 * np.linalg.norm(expected)):
        step, _ = run(FINE, Dense(DEFINITE, GRAD), radius)
        np.testing.assert_allclose(step.direction, expected, rtol=1e-8)
        assert step.report.stopped == Stop.SOLVED
        assert step.report.iterations == step.report.products == 4


@pytest.mark.parametrize("radius", [1e-3, 0.1, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("matrix", [DEFINITE, INDEFINITE], ids=["definite", "indefinite"])
def test_a_step_to_the_boundary_ends_where_the_path_of_cg_leaves_the_ball(x64, matrix, radius):
    corners = cg_path(matrix, GRAD)
    step, _ = run(FINE, Dense(matrix, GRAD), radius)
    np.testing.assert_allclose(step.direction, first_crossing(corners, radius), rtol=1e-7)
    assert_close(step.length, radius, 40)
    assert step.report.stopped in (Stop.BOUNDARY, Stop.NEGATIVE_CURVATURE)


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("matrix", [DEFINITE, INDEFINITE], ids=["definite", "indefinite"])
def test_no_point_of_the_path_within_the_ball_has_a_lower_model(x64, matrix, radius):
    model = lambda d: GRAD @ d + 0.5 * d @ matrix @ d
    corners = cg_path(matrix, GRAD)
    pieces = zip(corners, corners[1:], strict=False)
    path = [a + t * (b - a) for a, b in pieces for t in np.linspace(0, 1, 2001)]
    within = [model(d) for d in path if np.linalg.norm(d) <= radius * (1 + rounding())]
    step, _ = run(FINE, Dense(matrix, GRAD), radius)
    assert len(within) > 10
    assert step.predicted <= min(within) + 1e-9
    assert_close(step.predicted, model(step.direction), 40)


def test_negative_curvature_is_followed_to_the_boundary(x64):
    matrix, grad = np.diag([3.0, -1.0]), np.array([1.0, 1.0])
    step, _ = run(FINE, Dense(matrix, grad), 5.0)
    assert step.report.stopped == Stop.NEGATIVE_CURVATURE and step.report.iterations == 2
    np.testing.assert_allclose(step.direction, first_crossing(cg_path(matrix, grad), 5.0))
    first = -(grad @ grad) / (grad @ matrix @ grad) * grad
    assert step.predicted < grad @ first + 0.5 * first @ matrix @ first


def test_in_an_infinite_region_negative_curvature_gives_a_step_of_its_own_length(x64):
    matrix = random_matrix([-1.0, -2.0, -3.0, -4.0])
    step, _ = run(FINE, Dense(matrix, GRAD), np.inf)
    length = (GRAD @ GRAD) / abs(GRAD @ matrix @ GRAD)
    assert_close(step.direction, -length * GRAD, 4)
    assert step.report.stopped == Stop.NEGATIVE_CURVATURE


@pytest.mark.parametrize("radius", [0.5, np.inf])
def test_a_flat_model_gives_a_step_along_the_gradient(radius):
    step, _ = run(COARSE, Dense(np.zeros((4, 4), "float32"), GRAD.astype("float32")), radius)
    length = min(radius, np.linalg.norm(GRAD))
    np.testing.assert_allclose(step.direction, -length * GRAD / np.linalg.norm(GRAD), rtol=1e-5)


# Relative guards: in float32 the squares of most of these numbers are 0 or infinity.


def test_a_tiny_radius_gives_the_steepest_descent_to_its_boundary():
    for radius in (1e-12, 1e-25):
        problem = Dense(INDEFINITE.astype("float32"), GRAD.astype("float32"))
        step, _ = run(COARSE, problem, radius)
        expected = -GRAD / np.linalg.norm(GRAD)
        np.testing.assert_allclose(step.direction / np.float32(radius), expected, rtol=1e-5)
        assert step.predicted < 0


@pytest.mark.parametrize("factor", [2.0**-90, 2.0**-40, 2.0**40, 2.0**90])
def test_rescaling_the_objective_changes_nothing(factor):
    for matrix in (DEFINITE, INDEFINITE):
        problem = Dense(matrix.astype("float32"), GRAD.astype("float32"))
        for radius in (0.5, 1.5):
            step, _ = run(COARSE, problem, radius)
            rescaled, _ = run(COARSE, Dense(factor * problem.matrix, factor * problem.grad), radius)
            assert (rescaled.report.iterations, rescaled.report.stopped) == (
                step.report.iterations,
                step.report.stopped,
            )
            np.testing.assert_allclose(rescaled.direction, step.direction, rtol=1e-5)


@pytest.mark.parametrize("factor", [2.0**-90, 2.0**90])
def test_rescaling_the_parameters_rescales_the_step(factor):
    problem = Dense(INDEFINITE.astype("float32"), GRAD.astype("float32"))
    step, _ = run(COARSE, problem, 1.5)
    shorter = Dense(problem.matrix, factor * problem.grad)  # f in units of factor²
    rescaled, _ = run(COARSE, shorter, factor * 1.5)
    np.testing.assert_allclose(rescaled.direction / factor, step.direction, rtol=1e-5)
    assert (rescaled.report.iterations, rescaled.report.stopped) == (
        step.report.iterations,
        step.report.stopped,
    )


# The residual asked for


@pytest.mark.quick(2)
@pytest.mark.parametrize("fall", [0.9, 0.5, 1e-2, 1e-5])
def test_the_residual_asked_for_falls_with_the_square_of_the_gradient(x64, fall):
    matrix = random_matrix(np.geomspace(1, 1e3, 30))
    grad = np.ones(30)
    first, state = run(COARSE, Dense(matrix, grad), np.inf)
    assert 1e-3 < first.report.residual <= 0.5  # the first one is a loose one
    asked = min(0.5, 0.9 * fall**2)
    step, _ = run(COARSE, Dense(matrix, fall * grad), np.inf, state)
    assert step.report.stopped == Stop.SOLVED and step.report.residual <= asked
    before, _ = run(
        steihaug(int(step.report.iterations) - 1), Dense(matrix, fall * grad), np.inf, state
    )
    assert before.report.residual > asked


def test_the_residual_asked_for_is_never_below_the_working_precision():
    problem = Dense(DEFINITE.astype("float32"), GRAD.astype("float32"))
    _, state = run(COARSE, problem, np.inf)
    step, _ = run(COARSE, problem._replace(grad=np.float32(1e-12) * problem.grad), np.inf, state)
    assert step.report.stopped == Stop.SOLVED and step.report.iterations <= 6


def test_the_reported_residual_is_the_true_one(x64):
    for radius in (0.5, np.inf):
        step, _ = run(steihaug(3), Dense(DEFINITE, GRAD), radius)
        error = np.linalg.norm(DEFINITE @ step.direction + GRAD) / np.linalg.norm(GRAD)
        assert_close(step.report.residual, error, 40, norm=1)


def test_the_iteration_limit_holds_and_is_reported(x64):
    step, _ = run(steihaug(2, forcing=1e-10), Dense(DEFINITE, GRAD), np.inf)
    assert_close(step.direction, cg_path(DEFINITE, GRAD, 2)[-1], 40)
    assert step.report.iterations == 2 and step.report.stopped == Stop.MAX_STEPS


@pytest.mark.parametrize("radius", [0.5, np.inf])
def test_a_gradient_of_zero_takes_no_step(radius):
    step, _ = run(COARSE, Dense(DEFINITE.astype("float32"), np.zeros(4, "float32")), radius)
    assert not step.direction.any() and step.report.iterations == 0
    assert step.report.stopped == Stop.SOLVED


@pytest.mark.parametrize("radius", [0.5, np.inf])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["matrix", "gradient"])
def test_what_is_not_finite_ends_it_at_once_and_is_flagged(where, bad, radius):
    matrix, grad = DEFINITE.astype("float32"), GRAD.astype("float32")
    (matrix[1] if where == "matrix" else grad)[1] = bad
    step, _ = run(COARSE, Dense(matrix, grad), radius)
    assert step.report.iterations <= 1
    assert step.report.stopped == Stop.NONFINITE


# The units of the parameters


def bfgs_diagonal(matrix, directions):
    """The diagonals of the BFGS updates of a diagonal matrix, one after another, in NumPy."""
    first = directions[0]
    d = np.full(len(first), first @ matrix @ first / (first @ first))
    for u in directions:
        v = matrix @ u
        d = np.diag(np.diag(d) + np.outer(v, v) / (u @ v) - np.outer(d * u, d * u) / (u @ (d * u)))
    return d


def test_the_scaling_is_the_diagonal_of_bfgs_updates_by_the_directions_of_cg(x64):
    step, state = run(FINE, Dense(DEFINITE, GRAD), np.inf)
    corners = cg_path(DEFINITE, GRAD)
    expected = bfgs_diagonal(DEFINITE, np.diff(corners, axis=0))
    np.testing.assert_allclose(state.curvature, expected, rtol=rounding(40.0**2))
    # The last step is as long in the new units as it was in the old ones.
    length = state.unit * np.linalg.norm(np.sqrt(expected) * step.direction)
    np.testing.assert_allclose(length, step.length, rtol=rounding(40.0**2))
    np.testing.assert_allclose(
        state.size, np.linalg.norm(GRAD / np.sqrt(expected)), rtol=rounding(40.0**2)
    )


def test_in_its_own_units_a_step_is_the_best_on_the_path_of_scaled_cg(x64):
    _, state = run(FINE, Dense(DEFINITE, GRAD), np.inf)
    root = np.sqrt(np.asarray(state.curvature))
    corners = cg_path(DEFINITE / root / root[:, None], GRAD / root)
    radius = 0.5 * float(state.unit) * np.linalg.norm(corners[-1])
    step, _ = run(FINE, Dense(DEFINITE, GRAD), radius, state)
    expected = first_crossing(corners, radius / float(state.unit)) / root
    np.testing.assert_allclose(step.direction, expected, rtol=1e-7)
    assert_close(step.length, radius, 40)
    error = np.linalg.norm(DEFINITE @ step.direction + GRAD) / np.linalg.norm(GRAD)
    assert_close(step.report.residual, error, 40, norm=1)


def test_before_the_first_product_nothing_is_known_of_the_units():
    state = COARSE.init(jnp.zeros(4))
    assert jnp.isinf(state.size) and not state.known
    np.testing.assert_array_equal(state.curvature, np.ones(4))
    negative = Dense(-np.eye(4, dtype="float32"), GRAD.astype("float32"))
    _, state = run(COARSE, negative, 1.0)
    assert not state.known
    np.testing.assert_array_equal(state.curvature, np.ones(4))
