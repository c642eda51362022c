"""Least squares on the rows: ``min ‖[R; √λ D] d + [r; 0]‖``, against NumPy's ``lstsq``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratics import Dense, Rows, run
from tolerances import assert_close, condition_of, rounding

import secondorder as so
from secondorder.solvers import Stop, qr, svd

QR, SVD = qr(), svd()
both = pytest.mark.parametrize("solver", [QR, SVD], ids=["qr", "svd"])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def column_norms(rows):
    norms = np.linalg.norm(rows, axis=0)
    return np.where(norms > 0, norms, 1.0)


def oracle(rows, residual, damping, scaling=None):
    """The stacked problem in scaled coordinates, by NumPy's singular values."""
    scaling = column_norms(rows) if scaling is None else scaling
    n = rows.shape[1]
    stacked = np.concatenate([rows / scaling, np.sqrt(damping) * np.eye(n)])
    target = np.concatenate([-residual, np.zeros(n)])
    return np.linalg.lstsq(stacked, target)[0] / scaling


RANDOM = normal(6, 4)
ROWS = {
    "tall": RANDOM,
    "square": RANDOM[:4],
    "wide": RANDOM[:2],
    "a single row": RANDOM[:1],
    "badly scaled": RANDOM * 10.0 ** np.array([-8, 0, 4, 8]),
    "of deficient rank": np.concatenate([RANDOM[:, :3], RANDOM[:, :1] + RANDOM[:, 1:2]], axis=1),
    "with a column of zeros": RANDOM * np.array([1, 1, 0, 1]),
    "all zero": np.zeros((5, 4)),
}
RESIDUAL = normal(6, seed=1)


def problem(name, dtype=float) -> tuple[np.ndarray, np.ndarray]:
    rows = ROWS[name].astype(dtype)
    return rows, RESIDUAL[: len(rows)].astype(dtype)


@pytest.mark.quick(8)
@both
@pytest.mark.parametrize("damping", [1e-5, 1e-2, 1e3])
@pytest.mark.parametrize("name", ROWS)
def test_it_solves_the_stacked_problem(x64, name, damping, solver):
    rows, residual = problem(name)
    step, _ = run(solver, Rows(rows, residual), damping)
    d = step.direction * column_norms(rows)
    expected = oracle(rows, residual, damping) * column_norms(rows)
    # The squared condition number: the scaled columns are of length 1, the lowest value is √λ.
    tolerance = rounding(1 + 4 / damping, norm=max(1, np.linalg.norm(expected)))
    np.testing.assert_allclose(d, expected, atol=tolerance, rtol=0)


@pytest.mark.quick(2)
@both
@pytest.mark.parametrize("name", ["tall", "wide"])
def test_in_float32_it_agrees_to_1e_4(name, solver):
    rows, residual = problem(name, np.float32)
    step, _ = run(solver, Rows(rows, residual), 1e-2)
    np.testing.assert_allclose(step.direction, oracle(rows, residual, 1e-2), rtol=1e-4, atol=1e-5)


def ill_conditioned():
    """Eight rows of condition number 1e8, and a residual that a step of ones removes."""
    left, _ = np.linalg.qr(normal(8, 4))
    right, _ = np.linalg.qr(normal(4, 4))
    rows = left @ np.diag([1.0, 1e-3, 1e-6, 1e-8]) @ right
    return rows, -rows @ np.ones(4)


def test_at_condition_1e8_it_finds_the_step_that_the_normal_equations_lose(x64):
    rows, residual = ill_conditioned()
    step, _ = run(SVD, Rows(rows, residual))
    np.testing.assert_allclose(step.direction, np.ones(4), rtol=1e-6)
    normal = -np.linalg.solve(rows.T @ rows, rows.T @ residual)
    assert np.abs(normal - 1).max() > 1e-2


@both
def test_rounding_in_the_gradient_does_not_bring_back_the_squared_condition(x64, solver):
    rows, residual = ill_conditioned()
    exact, _ = run(solver, Rows(rows, residual))
    grad = rows.T @ residual
    noise = np.spacing(np.abs(rows).T @ np.abs(residual)) * np.array([2.0, -1.0, 3.0, -2.0])
    rounded, _ = run(solver, Rows(rows, residual, grad + noise))
    np.testing.assert_allclose(rounded.direction, exact.direction, rtol=1e-6)


@both
def test_at_condition_1e8_damped_it_keeps_the_digits_that_the_normal_equations_lose(x64, solver):
    rows, residual = ill_conditioned()
    damping = 1e-10
    expected = oracle(rows, residual, damping)
    step, _ = run(solver, Rows(rows, residual), damping)
    # The damped problem has condition 1e5: some κε = 1e-11 is lost, and κ²ε = 1e-6 by squaring.
    assert_close(step.direction, expected, 1e5)
    matrix = rows.T @ rows + damping * np.diag(column_norms(rows) ** 2)
    normal = -np.linalg.solve(matrix, rows.T @ residual)
    assert np.abs(normal / expected - 1).max() > 1e-8


@both
@pytest.mark.parametrize("name", ["tall", "wide"])
@pytest.mark.parametrize("damping", [1e7, 1e12, 1e19])
def test_however_strong_the_damping_the_step_is_the_scaled_descent(name, damping, solver):
    rows, residual = problem(name, np.float32)
    step, _ = run(solver, Rows(rows, residual), damping)
    descent = -(rows.T @ residual) / column_norms(rows) ** 2
    unit = lambda x: x / np.linalg.norm(x)
    np.testing.assert_allclose(unit(step.direction), unit(descent), atol=1e-2)
    assert step.predicted < 0


def test_of_many_solutions_svd_takes_the_shortest_in_scaled_coordinates(x64):
    for name in ("wide", "of deficient rank", "with a column of zeros", "all zero"):
        rows, residual = problem(name)
        step, _ = run(SVD, Rows(rows, residual))
        scaling = column_norms(rows)
        expected = -np.linalg.pinv(rows / scaling, rcond=1e-10) @ residual / scaling
        assert_close(step.direction, expected, condition_of(rows / scaling) ** 2)


@both
@pytest.mark.parametrize("name", ["tall", "square", "of deficient rank", "with a column of zeros"])
def test_a_deficient_rank_is_flagged(name, solver):
    rows, residual = problem(name, np.float32)
    step, _ = run(solver, Rows(rows, residual))
    deficient = np.linalg.matrix_rank(rows) < 4
    assert step.report.stopped == (Stop.SINGULAR if deficient else Stop.SOLVED)
    assert np.isfinite(step.direction).all()


@pytest.mark.quick(4)
@both
@pytest.mark.parametrize("name", ["tall", "square", "wide", "a single row", "badly scaled"])
def test_an_altered_gradient_is_solved_for_instead(x64, name, solver):
    rows, residual = problem(name)
    scaling = column_norms(rows)
    for grad in (0.1 * rows.T @ residual, np.arange(1.0, 5) * scaling):
        step, _ = run(solver, Rows(rows, residual, grad), 1e-2)
        matrix = rows.T @ rows + 1e-2 * np.diag(scaling**2)
        expected = -np.linalg.solve(matrix / np.outer(scaling, scaling), grad / scaling)
        # What r does not explain of the gradient is a difference, and some of it is divided by λ.
        kappa, size = 1 + 4 / 1e-2, max(1, np.linalg.norm(expected))
        assert_close(step.direction * scaling, expected, kappa, norm=size)
        predicted = grad @ step.direction + 0.5 * np.sum((rows @ step.direction) ** 2)
        assert_close(step.predicted, predicted, kappa)


@pytest.mark.quick(6)
@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "damping"),
    [
        ("tall", 0.0),
        ("tall", 1e-2),
        ("wide", 1e-2),
        ("of deficient rank", 1e-2),
        ("with a column of zeros", 1e-2),
    ],
)
def test_rescaled_parameters_or_residuals_rescale_the_step_and_nothing_else(
    name, damping, dtype, solver
):
    units = np.array([1e-6, 1.0, 1e6, 1e3])
    rtol = {"float32": 3e-3, "float64": 1e-7}[dtype]
    with jax.enable_x64(dtype == "float64"):
        rows, residual = problem(name, dtype)
        first, _ = run(solver, Rows(rows, residual), damping)
        of_params, _ = run(solver, Rows((rows / units).astype(dtype), residual), damping)
        small, large = [run(solver, Rows(c * rows, c * residual), damping)[0] for c in (1e-6, 1e6)]
    expected = first.direction
    size = np.abs(expected).max()
    for step, unit, c in ((of_params, units, 1), (small, 1, 1e-6), (large, 1, 1e6)):
        np.testing.assert_allclose(step.direction / unit, expected, atol=rtol * size)
        np.testing.assert_allclose(step.length, c * first.length, rtol=rtol)
        np.testing.assert_allclose(step.predicted, c**2 * first.predicted, rtol=rtol)
        np.testing.assert_allclose(step.report.optimality, first.report.optimality, rtol=rtol)
        assert step.report.stopped == first.report.stopped


@both
def test_the_prediction_keeps_its_digits_where_a_difference_of_squares_has_none(solver):
    # A residual of length 100 of which a thousandth can be fitted.
    rows = RANDOM.astype("float32")
    off = RESIDUAL - RANDOM @ np.linalg.lstsq(RANDOM, RESIDUAL)[0]
    residual = 100 * off / np.linalg.norm(off) + RANDOM @ np.full(4, 1e-2)
    step, _ = run(solver, Rows(rows, residual.astype("float32")))
    d = np.float64(step.direction)
    exact = (rows @ d) @ (residual + 0.5 * rows @ d)
    assert -1e-2 < exact < 0
    np.testing.assert_allclose(step.predicted, exact, rtol=2e-2)
    before = np.float32(residual)
    after = before + rows @ step.direction
    naive = np.float32(0.5) * (after @ after) - np.float32(0.5) * (before @ before)
    assert abs(naive - exact) > 5 * abs(step.predicted - exact)


@both
def test_the_scaling_is_the_largest_norm_each_column_has_had(x64, solver):
    rows, residual = problem("tall")
    _, state = run(solver, Rows(rows, residual), 0.5)
    np.testing.assert_allclose(state.norms, column_norms(rows))
    smaller = rows * np.array([0.1, 1.0, 3.0, 0.5])
    step, state = run(solver, Rows(smaller, residual), 0.5, state)
    largest = column_norms(rows) * np.array([1.0, 1.0, 3.0, 1.0])
    np.testing.assert_allclose(state.norms, largest)
    assert_close(step.direction, oracle(smaller, residual, 0.5, largest), 1 + 4 / 0.5)


@both
def test_optimality_is_the_cosine_with_the_span_of_the_columns(x64, solver):
    rows, residual = problem("tall")
    q = np.linalg.qr(rows)[0].T @ residual
    step, _ = run(solver, Rows(rows, residual))
    cosine = np.linalg.norm(q) / np.linalg.norm(residual)
    # It allows for ten roundings.
    assert_close(step.report.optimality, cosine, 10 * condition_of(rows))
    mixed = rows @ np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [3, 0, 0, 1.0]])
    other, _ = run(solver, Rows(mixed, residual))
    assert_close(other.report.optimality, step.report.optimality, 10 * condition_of(mixed))
    fitted = residual - rows @ np.linalg.lstsq(rows, residual)[0]
    step, _ = run(solver, Rows(rows, fitted))
    # What was fitted keeps κ‖r‖/‖fitted‖ roundings of `lstsq`; 1000 leave room for any LAPACK.
    rounding = np.finfo(float).eps * np.linalg.norm(residual) / np.linalg.norm(fitted)
    assert step.report.optimality < 1000 * np.linalg.cond(rows) * rounding
    step, _ = run(solver, Rows(rows, np.zeros(6)))
    assert step.report.optimality == 0 and not step.direction.any()


@both
def test_with_a_singular_jacobian_five_times_the_largest_cosine_is_enough(x64, solver):
    # The columns differ by 1e-9 in a direction in which all of the residual lies.
    rows = np.array([[1.0, 1.0], [0.0, 1e-9], [0.0, 0.0]])
    residual = np.array([0.0, 1.0, 1.0])
    step, _ = run(solver, Rows(rows, residual))
    np.testing.assert_allclose(step.report.optimality, 5 * 1e-9 / np.sqrt(2), rtol=1e-6)


@both
def test_a_column_behind_columns_of_zeros_is_not_forgotten(x64, solver):
    rows = np.zeros((6, 4))
    rows[:, 0], rows[1, 3] = [1, 0, 0, 0, 0, 0], 1e-3
    residual = np.array([0, 0.3, 1, 0, 0, 0.0])
    step, _ = run(solver, Rows(rows, residual))
    cosine = 0.3 / np.linalg.norm(residual)
    np.testing.assert_allclose(step.report.optimality, cosine, rtol=1e-6)


@pytest.mark.quick(1)
@both
def test_other_losses_are_solved_with_their_curvature(x64, solver):
    labels = jnp.array([0, 2, 1])
    logits = lambda p: jnp.outer(jnp.array([1.0, -1.0, 0.5]), p) + jnp.sin(p)
    objective = so.compose(so.softmax_cross_entropy(labels), logits)
    at = jnp.array([0.1, -0.2, 0.4])
    model = so.Quadratic(jax.grad(objective)(at), so.ggn(objective, at))
    step, _ = jax.jit(lambda: solver.update(model, solver.init(at), jnp.asarray(0.1)))()
    matrix = np.array(so.dense(model.curvature, at))
    matrix += 0.1 * np.diag(np.diag(matrix))
    expected = -np.linalg.solve(matrix, model.grad)
    assert_close(step.direction, expected, np.linalg.cond(matrix))


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_flagged(bad, solver):
    rows, residual = problem("tall", np.float32)
    broken = rows.copy()
    broken[1, 1] = bad
    assert run(solver, Rows(broken, residual))[0].report.stopped == Stop.NONFINITE
    broken = residual.copy()
    broken[1] = bad
    assert run(solver, Rows(rows, broken))[0].report.stopped == Stop.NONFINITE


@both
def test_a_curvature_without_rows_is_refused_in_a_sentence(solver):
    with pytest.raises(TypeError, match=r"needs the rows.* is a Function.*exact\(ggn\)"):
        run(solver, Dense(np.eye(2), np.ones(2)))
