"""The dense solver: what NumPy finds, and a descent direction where there is nothing to find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratics import Dense, random_matrix, run

import secondorder as so
from secondorder.solvers import Stop, direct

SOLVER = direct()
GRAD = np.array([1.0, -2.0, 0.5])


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("eigenvalues", [[1.0], [1, 2, 3], [1e-3, 1, 1e3, 2, 3]])
def test_it_solves_what_numpy_solves(x64, eigenvalues, damping):
    matrix = random_matrix(eigenvalues)
    grad = np.arange(1.0, 1 + len(eigenvalues))
    step, _ = run(SOLVER, Dense(matrix, grad), damping)
    expected = -np.linalg.solve(matrix + damping * np.eye(len(grad)), grad)
    np.testing.assert_allclose(step.direction, expected, rtol=1e-8)
    assert step.stopped == Stop.SOLVED


def test_a_tree_is_solved_as_the_vector_of_its_entries(x64):
    value_fn = lambda p: jnp.sum(jnp.cosh(_join(p) - GRAD)) + jnp.prod(_join(p))
    tree = {"a": jnp.array(0.3), "b": (jnp.array([[0.1, 0.2]]), None)}

    @jax.jit
    def direction(params):
        model = so.Quadratic(jax.grad(value_fn)(params), so.hessian(value_fn, params))
        return _join(SOLVER.update(model, (), jnp.zeros(()))[0].direction)

    np.testing.assert_allclose(direction(tree), direction(_join(tree)), rtol=1e-12)


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
        assert step.stopped == Stop.SHIFTED


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_eigenvalue_of_rounding_size_is_never_divided_by(dtype):
    with jax.enable_x64(dtype == "float64"):
        for seed in range(12):  # in about half of them rounding makes it positive
            matrix = random_matrix([0.0, 2.0, 3.0], seed).astype(dtype)
            step, _ = run(SOLVER, Dense(matrix, GRAD.astype(dtype)))
            assert step.stopped == Stop.SHIFTED
            assert step.length < 1e4


@pytest.mark.parametrize("name", ["indefinite", "negative definite"])
def test_the_shift_is_of_the_size_of_the_lowest_eigenvalue(x64, name):
    matrix = UNSAFE[name]
    step, _ = run(SOLVER, Dense(matrix, GRAD))
    d = np.asarray(step.direction)
    shift = -(GRAD + matrix @ d) @ d / (d @ d)
    np.testing.assert_allclose((matrix + shift * np.eye(3)) @ d, -GRAD, rtol=1e-8)
    lowest = np.linalg.eigvalsh(matrix)[0]
    assert 0 < lowest + shift < 3 * abs(lowest) + 1e-2


def test_rescaling_the_coordinates_shifts_nothing_and_rescales_the_step():
    # Powers of two, so that not even the rounding differs.
    matrix, grad = random_matrix([1.0, 2.0, 3.0]).astype("float32"), GRAD.astype("float32")
    scale = np.array([2.0**20, 1, 2.0**-20], "float32")
    step, _ = run(SOLVER, Dense(matrix, grad))
    rescaled, _ = run(SOLVER, Dense(matrix * np.outer(scale, scale), grad * scale))
    np.testing.assert_allclose(rescaled.direction * scale, step.direction, rtol=1e-6)
    assert rescaled.stopped == Stop.SOLVED


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
    assert step.stopped == Stop.NONFINITE


def test_the_reported_residual_and_prediction_are_the_true_ones(x64):
    matrix, damping = random_matrix([1.0, 2.0, 1e3]), 0.1
    problem = Dense(matrix, GRAD)
    step, _ = run(SOLVER, problem, damping)
    error = (matrix + damping * np.eye(3)) @ step.direction + GRAD
    assert step.residual < 1e-12
    np.testing.assert_allclose(
        step.residual, np.linalg.norm(error) / np.linalg.norm(GRAD), atol=1e-14
    )
    np.testing.assert_allclose(step.predicted, problem.model()(step.direction), rtol=1e-12)
    np.testing.assert_allclose(step.length, np.linalg.norm(step.direction), rtol=1e-12)
    assert step.products == 3


def test_a_gradient_of_zero_gives_a_step_of_zero():
    step, _ = run(SOLVER, Dense(np.eye(3), np.zeros(3)))
    assert not step.direction.any() and step.stopped == Stop.SOLVED and step.residual == 0
