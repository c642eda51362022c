"""Conjugate gradients: the dense solution, relative guards, and what happens where B bends down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratics import Dense, random_matrix, run
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.solvers import Progress, Stop, cg, relative_progress, relative_residual
from secondorder.solvers._cg import Memory

COARSE, FINE = cg(), cg(200, stop=relative_residual(1e-12))  # some 5e3 ε: hence c=1e4 below
WARM = cg(200, stop=relative_residual(1e-10), warm_start=1.0)

EIGENVALUES = np.array([1.0, 2.0, 5.0, 10.0])
MATRIX = random_matrix(EIGENVALUES)
GRAD = np.array([1.0, -2.0, 0.5, 3.0])


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_it_solves_a_definite_system_in_as_many_steps_as_it_has_unknowns(x64, damping):
    step, _ = run(FINE, Dense(MATRIX, GRAD), damping)
    expected = -np.linalg.solve(MATRIX + damping * np.eye(4), GRAD)
    assert_close(step.direction, expected, np.linalg.cond(MATRIX), c=1e4)
    assert step.report.iterations == 4 and step.report.stopped == Stop.SOLVED
    assert step.report.products == 5  # one more for the true residual


def test_it_needs_one_step_for_each_different_eigenvalue(x64):
    step, _ = run(FINE, Dense(random_matrix([1.0, 7.0, 7.0, 7.0]), GRAD))
    assert step.report.iterations == 2 and step.report.stopped == Stop.SOLVED


def test_what_it_reports_is_recomputed_from_the_step(x64):
    damping = 0.3
    problem = Dense(MATRIX, GRAD)
    step, _ = run(cg(2), problem, damping)
    error = (MATRIX + damping * np.eye(4)) @ step.direction + GRAD
    size = np.linalg.norm(error) / np.linalg.norm(GRAD)
    assert size > 1e-2
    assert_close(step.report.residual, size, norm=1)
    assert_close(step.predicted, problem.model()(step.direction), np.linalg.cond(MATRIX))
    assert_close(step.length, np.linalg.norm(step.direction))


@pytest.mark.parametrize("factor", [1e-12, 1e-30, 1e30])
def test_the_size_of_the_gradient_changes_neither_steps_nor_direction(factor):
    matrix = random_matrix(np.geomspace(1, 30, 12)).astype("float32")
    grad = np.arange(1.0, 13, dtype="float32")
    solver = cg(stop=relative_residual(1e-3))
    step, _ = run(solver, Dense(matrix, grad))
    rescaled, _ = run(solver, Dense(matrix, np.float32(factor) * grad))
    assert step.report.iterations > 5
    assert abs(rescaled.report.iterations - step.report.iterations) <= 1
    np.testing.assert_allclose(rescaled.direction / np.float32(factor), step.direction, atol=3e-3)
    assert rescaled.report.residual < 1.1e-3 and rescaled.report.stopped == Stop.SOLVED


@pytest.mark.parametrize("factor", [2.0**-70, 2.0**70])
def test_the_size_of_the_curvature_changes_nothing_either(factor):
    problem = Dense(MATRIX.astype("float32"), GRAD.astype("float32"))
    step, _ = run(COARSE, problem)
    rescaled, _ = run(COARSE, Dense(factor * problem.matrix, problem.grad))
    assert rescaled.report.iterations == step.report.iterations
    np.testing.assert_allclose(factor * rescaled.direction, step.direction, rtol=1e-6)


def by_inverse(quadratic, damping):
    """A preconditioner that is the whole answer for a diagonal matrix."""
    diagonal = jnp.diag(so.dense(quadratic.curvature, quadratic.grad))
    return lambda r: r / (diagonal + damping)


def test_a_perfect_preconditioner_leaves_one_step_to_do(x64):
    problem = Dense(np.diag([1e-4, 1.0, 1e2, 1e4]), GRAD)
    step, _ = run(cg(preconditioner=by_inverse), problem, 0.1)
    assert step.report.iterations == 1
    expected = -GRAD / (np.diag(problem.matrix) + 0.1)
    np.testing.assert_allclose(step.direction, expected, rtol=rounding())


def test_a_preconditioner_changes_the_path_but_not_the_goal(x64):
    scale = 10.0 ** np.arange(4)
    problem = Dense(MATRIX * np.outer(scale, scale), GRAD)
    plain, _ = run(cg(stop=relative_residual(1e-8)), problem)
    better, _ = run(cg(stop=relative_residual(1e-8), preconditioner=by_inverse), problem)
    assert better.report.iterations < plain.report.iterations
    np.testing.assert_allclose(
        better.direction * scale, -np.linalg.solve(MATRIX, GRAD / scale), rtol=1e-6
    )


def iterates_of(matrix, grad, count):
    """Textbook conjugate gradients from zero: the first so many iterates."""
    step, residual = np.zeros_like(grad), -grad
    direction, found = residual, []
    for _ in range(count):
        alpha = residual @ residual / (direction @ matrix @ direction)
        step, rest = step + alpha * direction, residual - alpha * matrix @ direction
        direction = rest + (rest @ rest) / (residual @ residual) * direction
        residual = rest
        found.append(step)
    return found


@pytest.mark.parametrize(
    ("length", "numbers"), [(4, [6, 8, 11, 15]), (20, [1, 2, 3, 4, 6, 8, 11, 15])]
)
def test_the_trail_holds_the_latest_iterates_in_growing_distances(x64, length, numbers):
    matrix, damping = random_matrix(np.geomspace(1, 30, 60)), 0.2
    problem = Dense(matrix, 7.0 * np.sin(np.arange(60.0)))
    step, _ = run(cg(18, stop=relative_residual(1e-12), iterates=length), problem, damping)
    expected = iterates_of(matrix + damping * np.eye(60), problem.grad, 18)
    assert_close(step.direction, expected[-1], 30**2)  # each step adds the errors of all before
    assert step.candidates.count == 8
    for back, number in enumerate(reversed(numbers), start=1):
        place = (step.candidates.count - back) % (length + 1)
        d = expected[number - 1]
        assert_close(step.candidates.steps[place], d, 30**2)
        model = problem.grad @ d + 0.5 * d @ matrix @ d
        np.testing.assert_allclose(step.candidates.predicted[place], model, rtol=1e-8)


# Where the curvature is not positive


def test_negative_curvature_at_once_gives_a_gradient_step_of_its_length(x64):
    matrix = random_matrix([-1.0, -2.0, -3.0, -4.0])
    step, _ = run(COARSE, Dense(matrix, GRAD))
    length = (GRAD @ GRAD) / abs(GRAD @ matrix @ GRAD)
    assert_close(step.direction, -length * GRAD, 4)
    assert step.report.iterations == 1 and step.report.stopped == Stop.NEGATIVE_CURVATURE


def test_negative_curvature_met_later_keeps_the_step_so_far(x64):
    matrix, grad = np.diag([3.0, -1.0]), np.array([1.0, 1.0])
    step, _ = run(COARSE, Dense(matrix, grad))
    so_far = -(grad @ grad) / (grad @ matrix @ grad) * grad
    assert_close(step.direction, so_far)
    assert step.report.iterations == 2 and step.report.stopped == Stop.NEGATIVE_CURVATURE
    assert step.predicted < 0


def test_damping_beyond_the_lowest_eigenvalue_leaves_nothing_negative(x64):
    matrix, grad = np.diag([3.0, -1.0]), np.array([1.0, 1.0])
    step, _ = run(COARSE, Dense(matrix, grad), 1.5)
    assert_close(step.direction, [-1 / 4.5, -1 / 0.5], 9)
    assert step.report.stopped == Stop.SOLVED


@pytest.mark.parametrize("size", [1.0, 1e-30])
def test_a_flat_direction_gives_the_negative_gradient(size):
    grad = np.float32(size) * GRAD.astype("float32")
    step, _ = run(COARSE, Dense(np.zeros((4, 4), "float32"), grad))
    np.testing.assert_allclose(step.direction, -grad, rtol=1e-6)
    assert step.report.stopped == Stop.NEGATIVE_CURVATURE


@pytest.mark.parametrize("grad", [[1.0, 0.0], [1.0, 1e-3]])
def test_a_singular_system_gives_a_finite_descent_direction(grad):
    grad = np.array(grad, "float32")
    step, _ = run(COARSE, Dense(np.diag([2.0, 0.0]).astype("float32"), grad))
    assert np.isfinite(step.direction).all() and step.direction @ grad < 0
    assert step.predicted < 0


# The warm start


def test_a_start_at_the_solution_takes_no_step(x64):
    problem = Dense(MATRIX, GRAD)
    cold, state = run(WARM, problem, 0.1)
    np.testing.assert_array_equal(cold.direction, state.warm)
    again, _ = run(WARM, problem, 0.1, state)
    assert (
        cold.report.iterations == 4
        and again.report.iterations == 0
        and again.report.stopped == Stop.SOLVED
    )
    assert_close(again.direction, cold.direction)


def test_a_start_near_the_solution_saves_steps_and_ends_at_the_same_place(x64):
    matrix = random_matrix(np.geomspace(1, 1e3, 12))
    grad = np.ones(12)
    loose = cg(200, stop=relative_residual(1e-4), warm_start=1.0)
    cold, state = run(loose, Dense(matrix, grad))
    warm, _ = run(loose, Dense(matrix, 1.001 * grad), 0.0, state)
    assert warm.report.iterations < cold.report.iterations
    assert warm.report.residual <= 1.1e-4 and cold.report.residual <= 1.1e-4


def test_a_start_that_increases_the_model_is_dropped(x64):
    problem = Dense(MATRIX, GRAD)
    cold, _ = run(WARM, problem)
    uphill = jnp.asarray(-10 * cold.direction)
    step, _ = run(WARM, problem, 0.0, Memory(uphill, ()))
    assert step.report.iterations == cold.report.iterations
    np.testing.assert_array_equal(step.direction, cold.direction)


def test_the_start_is_the_last_step_times_the_factor(x64):
    # No iteration, which `cg` itself refuses: what comes back is the start itself.
    start = jnp.asarray(-0.01 * GRAD)
    step, _ = run(cg.__wrapped__(0, warm_start=0.5), Dense(MATRIX, GRAD), 0.0, Memory(start, ()))
    np.testing.assert_allclose(step.direction, 0.5 * start)


# When it stops


def test_it_stops_at_the_relative_residual_asked_for(x64):
    problem = Dense(random_matrix(np.geomspace(1, 1e4, 20)), np.ones(20))
    residuals = []
    for tolerance in (1e-1, 1e-3, 1e-6):
        step, _ = run(cg(stop=relative_residual(tolerance)), problem)
        assert step.report.residual <= tolerance and step.report.stopped == Stop.SOLVED
        residuals.append((int(step.report.iterations), float(step.report.residual)))
    assert residuals[0][0] < residuals[1][0] < residuals[2][0]
    before, _ = run(cg(residuals[1][0] - 1, stop=relative_residual(1e-3)), problem)
    assert before.report.residual > 1e-3  # it did not go one step too far


def test_the_relative_progress_rule_compares_with_the_model_k_steps_ago():
    rule = relative_progress(5e-4)
    falling = jnp.array([0.0] * 2 + [-1.0] * 10 + [-1.004] + [-1.006] * 10)
    stops = [bool(rule(Progress(jnp.asarray(i), jnp.asarray(1.0), falling))) for i in range(14)]
    # k = 10: after 12 steps the last ten gained 0.004 of 1.004, less than 10 * 5e-4 of it.
    assert stops == [False] * 12 + [True] + [False]


def test_the_relative_progress_rule_never_stops_while_the_model_is_not_below_zero():
    rule = relative_progress()
    flat = jnp.zeros(31)
    assert not any(rule(Progress(jnp.asarray(i), jnp.asarray(1.0), flat)) for i in range(31))


def test_relative_progress_stops_long_before_the_residual_is_small(x64):
    problem = Dense(random_matrix(np.geomspace(1e-4, 1, 60)), np.ones(60))
    patient, _ = run(cg(500, stop=relative_residual(1e-10)), problem)
    early, _ = run(cg(500, stop=relative_progress(1e-3)), problem)
    assert 10 < early.report.iterations < 0.7 * patient.report.iterations
    assert early.predicted < 0.9 * patient.predicted < 0


def test_the_iteration_limit_holds_and_is_reported(x64):
    step, _ = run(cg(3), Dense(random_matrix(np.geomspace(1, 1e4, 20)), np.ones(20)))
    assert step.report.iterations == 3 and step.report.stopped == Stop.MAX_STEPS
    assert step.predicted < 0 and step.report.residual > 1e-5


@pytest.mark.parametrize("solver", [COARSE, WARM], ids=["cold", "warm"])
def test_a_gradient_of_zero_takes_no_step(solver):
    step, _ = run(solver, Dense(MATRIX.astype("float32"), np.zeros(4, "float32")))
    assert not step.direction.any() and step.report.iterations == 0
    assert step.report.stopped == Stop.SOLVED and step.report.residual == 0


@pytest.mark.parametrize("solver", [COARSE, WARM], ids=["cold", "warm"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["matrix", "gradient"])
def test_what_is_not_finite_ends_it_at_once_and_is_flagged(where, bad, solver):
    matrix, grad = MATRIX.astype("float32"), GRAD.astype("float32")
    (matrix[1] if where == "matrix" else grad)[1] = bad
    step, _ = run(solver, Dense(matrix, grad))
    assert step.report.iterations <= 1
    assert step.report.stopped == Stop.NONFINITE


def test_a_tree_with_leaves_of_low_precision_is_solved_in_float32():
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": (jnp.ones((), jnp.float32), None)}
    curvature = so.operators.Diagonal(jax.tree.map(lambda x: 2 * x, params))
    grad = jax.tree.map(lambda x: 3 * x.astype(jnp.float32), params)
    step, _ = COARSE.update(so.Quadratic(grad, curvature), COARSE.init(grad), jnp.asarray(1.0))
    for leaf in jax.tree.leaves(step.direction):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, -1.0, rtol=1e-6)
