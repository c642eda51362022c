"""The dense solver: what NumPy finds, and a descent direction where there is nothing to find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratics import Dense, random_matrix, run
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.solvers import Stop, direct
from secondorder.solvers._direct import safe_cholesky

SOLVER = direct()
FACTORISE = jax.jit(safe_cholesky)
GRAD = np.array([1.0, -2.0, 0.5])


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("eigenvalues", [[1.0], [1, 2, 3], [1e-3, 1, 1e3, 2, 3]])
def test_it_solves_what_numpy_solves(x64, eigenvalues, damping):
    matrix = random_matrix(eigenvalues)
    grad = np.arange(1.0, 1 + len(eigenvalues))
    step, _ = run(SOLVER, Dense(matrix, grad), damping)
    expected = -np.linalg.solve(matrix + damping * np.eye(len(grad)), grad)
    np.testing.assert_allclose(step.direction, expected, rtol=1e-8)
    assert step.report.stopped == Stop.SOLVED


def test_a_tree_is_solved_as_the_vector_of_its_entries(x64):
    value_fn = lambda p: jnp.sum(jnp.cosh(_join(p) - GRAD)) + jnp.prod(_join(p))
    tree = {"a": jnp.array(0.3), "b": (jnp.array([[0.1, 0.2]]), None)}

    @jax.jit
    def direction(params):
        model = so.Quadratic(jax.grad(value_fn)(params), so.hessian(value_fn, params))
        return _join(SOLVER.update(model, (), jnp.zeros(()))[0].direction)

    np.testing.assert_allclose(direction(tree), direction(_join(tree)), rtol=rounding(c=1e4))


def _join(tree):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


UNSAFE = {
    "indefinite": random_matrix([-1.0, 2.0, 3.0]),
    "indefinite with a positive diagonal": np.array([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]]),
    "negative definite": random_matrix([-1.0, -2.0, -3.0]),
    "singular": random_matrix([0.0, 2.0, 3.0]),
    "of rank one": np.ones((3, 3)),
    "zero": np.zeros((3, 3)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNSAFE)
def test_a_shift_makes_any_other_matrix_give_a_descent_direction(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        matrix = UNSAFE[name].astype(dtype)
        step, _ = run(SOLVER, Dense(matrix, GRAD.astype(dtype)))
        assert np.isfinite(step.direction).all()
        assert GRAD @ step.direction < 0
        assert step.predicted < 0
        assert step.report.stopped == Stop.SHIFTED


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_eigenvalue_of_rounding_size_is_never_divided_by(dtype):
    with jax.enable_x64(dtype == "float64"):
        for seed in range(12):  # in about half of them rounding makes it positive
            matrix = random_matrix([0.0, 2.0, 3.0], seed).astype(dtype)
            step, _ = run(SOLVER, Dense(matrix, GRAD.astype(dtype)))
            assert step.report.stopped == Stop.SHIFTED
            units = np.sqrt(np.diag(matrix))  # what is left of the eigenvalue is the shift's 1e-3
            assert np.linalg.norm(units * step.direction) <= 1.01e3 * np.linalg.norm(GRAD / units)


def units_of(matrix):
    """``Dᵢ = √|Aᵢᵢ| maxⱼ |Aᵢⱼ| / √|Aⱼⱼ|``, entry by entry, for a matrix without zeros on it."""
    bend = np.abs(np.diag(matrix))
    count = range(len(bend))
    return np.array(
        [max(abs(matrix[i, j]) * (bend[i] / bend[j]) ** 0.5 for j in count) for i in count]
    )


@pytest.mark.parametrize("name", ["indefinite", "negative definite"])
def test_the_shift_is_of_the_size_of_the_lowest_eigenvalue_in_the_matrixs_own_units(x64, name):
    matrix = UNSAFE[name]
    step, _ = run(SOLVER, Dense(matrix, GRAD))
    d, units = np.asarray(step.direction), units_of(matrix)
    shift = -(GRAD + matrix @ d) @ d / (d @ (units * d))
    np.testing.assert_allclose((matrix + shift * np.diag(units)) @ d, -GRAD, rtol=1e-8)
    lowest = np.linalg.eigvalsh(matrix / np.sqrt(np.outer(units, units)))[0]
    assert 0 < lowest + shift < 3 * abs(lowest) + 1e-2


def test_the_shift_of_a_semidefinite_matrix_is_a_fraction_of_its_diagonal(x64):
    matrix = np.outer([1.0, 1e-3, 1e3], [1.0, 1e-3, 1e3])
    _, shift = FACTORISE(matrix)
    np.testing.assert_allclose(shift / np.diag(matrix), 1e-3, rtol=rounding())


ZEROS = np.array(  # 0 has no curvature but is coupled to one that has, 3 is coupled to 0 alone
    [[0.0, 2, 0, 0.5, 0], [2, 1, 3, 0, 0], [0, 3, -1, 0, 0], [0.5, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
)
COUPLED = ZEROS[:3, :3]  # every unit is known from the matrix


WITH_UNITS = {k: m for k, m in UNSAFE.items() if m.any()} | {"with a zero diagonal": COUPLED}


@pytest.mark.parametrize("exponent", [20, -20])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", WITH_UNITS)
def test_rescaling_the_coordinates_rescales_the_shifted_step(name, dtype, exponent):
    with jax.enable_x64(dtype == "float64"):
        matrix, grad = WITH_UNITS[name].astype(dtype), GRAD.astype(dtype)
        # 10^±6 as powers of two, so that not even the rounding differs.
        scale = np.array([2.0**exponent, 1, 2.0**-exponent], dtype)
        rescaled = matrix * np.outer(scale, scale)
        (factor, shift), (its_factor, its_shift) = map(FACTORISE, (matrix, rescaled))
        np.testing.assert_array_equal(its_factor, factor * scale[:, None])
        np.testing.assert_array_equal(its_shift, shift * scale**2)
        step, _ = run(SOLVER, Dense(matrix, grad))
        moved, _ = run(SOLVER, Dense(rescaled, grad * scale))
        np.testing.assert_allclose(moved.direction * scale, step.direction, rtol=1e-6)
        assert moved.report.stopped == step.report.stopped == Stop.SHIFTED


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rounding", [0.0, 1e-17, -1e-17])
def test_rows_without_curvature_of_their_own_are_shifted_by_what_they_are_coupled_to(
    dtype, rounding
):
    with jax.enable_x64(dtype == "float64"):
        matrix = jnp.asarray(ZEROS + rounding * np.eye(5), dtype)
        factor, shift = map(np.asarray, FACTORISE(matrix))
        assert np.all(np.isfinite(factor)) and np.all(shift > 0)
        shifted = factor @ factor.T
        tolerance = 1e2 * np.finfo(dtype).eps * np.sqrt(np.outer(shift, shift))
        assert np.all(np.abs(shifted - matrix - np.diag(shift)) <= tolerance)
        assert np.linalg.eigvalsh(shifted / np.sqrt(np.outer(shift, shift)))[0] > 0


def test_rescaling_the_coordinates_shifts_nothing_and_rescales_the_step():
    # Powers of two, so that not even the rounding differs.
    matrix, grad = random_matrix([1.0, 2.0, 3.0]).astype("float32"), GRAD.astype("float32")
    scale = np.array([2.0**20, 1, 2.0**-20], "float32")
    step, _ = run(SOLVER, Dense(matrix, grad))
    rescaled, _ = run(SOLVER, Dense(matrix * np.outer(scale, scale), grad * scale))
    np.testing.assert_allclose(rescaled.direction * scale, step.direction, rtol=1e-6)
    assert rescaled.report.stopped == Stop.SOLVED


@pytest.mark.parametrize("name", sorted(UNSAFE.keys() - {"zero"}))
@pytest.mark.parametrize("factor", [2.0**-80, 2.0**80])
def test_rescaling_the_objective_changes_nothing(name, factor):
    matrix, grad = UNSAFE[name].astype("float32"), GRAD.astype("float32")
    step, _ = run(SOLVER, Dense(matrix, grad))
    rescaled, _ = run(SOLVER, Dense(matrix * factor, grad * factor))
    np.testing.assert_allclose(rescaled.direction, step.direction, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["matrix", "gradient"])
def test_what_is_not_finite_is_flagged(bad, where):
    matrix, grad = np.eye(3), GRAD.copy()
    (matrix[1] if where == "matrix" else grad)[1] = bad
    step, _ = run(SOLVER, Dense(matrix, grad))
    assert step.report.stopped == Stop.NONFINITE


def test_the_reported_residual_and_prediction_are_the_true_ones(x64):
    matrix, damping = random_matrix([1.0, 2.0, 1e3]), 0.1
    problem, damped = Dense(matrix, GRAD), matrix + damping * np.eye(3)
    step, _ = run(SOLVER, problem, damping)
    error = np.linalg.norm(damped @ step.direction + GRAD) / np.linalg.norm(GRAD)
    tolerance = rounding(np.linalg.cond(damped))
    assert step.report.residual < tolerance
    np.testing.assert_allclose(step.report.residual, error, atol=tolerance)
    np.testing.assert_allclose(step.predicted, problem.model()(step.direction), rtol=tolerance)
    np.testing.assert_allclose(step.length, np.linalg.norm(step.direction), rtol=rounding())
    assert step.report.products == 3


def test_a_gradient_of_zero_gives_a_step_of_zero():
    step, _ = run(SOLVER, Dense(np.eye(3), np.zeros(3)))
    assert (
        not step.direction.any()
        and step.report.stopped == Stop.SOLVED
        and step.report.residual == 0
    )


def test_a_parameter_that_nothing_depends_on_leaves_the_others_their_step(x64):
    matrix, grad = random_matrix([1.0, 2.0, 1e3]), GRAD.copy()
    wide = np.zeros((4, 4))
    kept = np.array([0, 2, 3])
    wide[np.ix_(kept, kept)] = matrix
    step, _ = run(SOLVER, Dense(wide, np.insert(grad, 1, 0.0)))
    assert_close(np.asarray(step.direction)[kept], -np.linalg.solve(matrix, grad), 1e3)
    assert step.direction[1] == 0 and step.report.stopped == Stop.SOLVED
