"""Every instrument against the dense matrix: within its own standard error, or exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import secondorder as so

LIKE = {"a": np.zeros((3, 4)), "b": np.zeros(8)}  # of the precision that a test runs in
N = 20
KEY = jax.random.key(3)


def matrix_with(eigenvalues, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((N, N)))
    return q @ np.diag(eigenvalues) @ q.T


def operator(matrix):
    """The matrix as an operator on trees like LIKE."""

    def f(p):
        x = jnp.concatenate([p["a"].ravel(), p["b"]])
        return 0.5 * x @ jnp.asarray(matrix, x.dtype) @ x

    return so.hessian(f, jax.tree.map(jnp.asarray, LIKE))


def flat(x):
    return np.concatenate([np.ravel(x["a"]), np.ravel(x["b"])])


SPREAD = np.geomspace(1e-2, 1e2, N)


def test_the_trace_lies_within_its_standard_error_and_knows_its_variance(x64):
    matrix = matrix_with(SPREAD)
    reading = jax.jit(lambda: so.trace(operator(matrix), LIKE, KEY, samples=400))()
    assert abs(reading.value - np.trace(matrix)) < 4 * reading.standard_error
    variance = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2))
    np.testing.assert_allclose(reading.standard_error, np.sqrt(variance / 400), rtol=0.2)
    assert int(reading.products) == 400


def test_the_diagonal_lies_within_its_standard_error(x64):
    matrix = matrix_with(SPREAD)
    reading = jax.jit(lambda: so.diagonal(operator(matrix), LIKE, KEY, samples=400))()
    assert jax.tree.map(jnp.shape, reading.value) == jax.tree.map(jnp.shape, LIKE)
    errors, scale = flat(reading.value) - np.diag(matrix), flat(reading.standard_error)
    assert np.all(np.abs(errors) < 4.5 * scale)
    off = np.sum(matrix**2, axis=1) - np.diag(matrix) ** 2
    np.testing.assert_allclose(scale, np.sqrt(off / 400), rtol=0.25)


def test_a_single_probe_reports_no_standard_error():
    reading = so.trace(operator(matrix_with(SPREAD)), LIKE, KEY, samples=1)
    assert np.isfinite(reading.value) and np.isinf(reading.standard_error)


def test_more_samples_extend_the_draw(x64):
    op = operator(matrix_with(SPREAD))
    one = so.trace(op, LIKE, jax.random.key(0), samples=1).value
    other = tree_probe(op, jax.random.fold_in(jax.random.key(0), 1))
    two = so.trace(op, LIKE, jax.random.key(0), samples=2).value
    np.testing.assert_allclose(two, (one + other) / 2, rtol=1e-12)


def tree_probe(op, key):
    z = so.tree.random_signs(key, LIKE)
    return so.tree.vdot(z, op.mv(z))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_top_eigenpairs_are_those_of_the_dense_matrix_and_of_its_negative_the_smallest(x64, sign):
    eigenvalues = np.concatenate([-np.geomspace(0.1, 10, N // 2), np.geomspace(0.2, 30, N // 2)])
    matrix = matrix_with(eigenvalues)
    op = sign * operator(matrix)
    pairs = jax.jit(lambda: so.top_eigenpairs(op, LIKE, KEY, 3))()
    w, v = np.linalg.eigh(sign * matrix)
    np.testing.assert_allclose(pairs.value, w[::-1][:3], rtol=1e-10)
    for i in range(3):
        found = flat(jax.tree.map(lambda x, i=i: x[i], pairs.vectors))
        np.testing.assert_allclose(abs(found @ v[:, -1 - i]), 1, rtol=1e-9)
    assert int(pairs.products) == N  # never more than the dimension


def test_eigenvalues_are_found_as_often_as_they_occur(x64):
    eigenvalues = np.repeat([1.0, 2.0, 3.0, 7.0], N // 4)
    pairs = so.top_eigenpairs(operator(matrix_with(eigenvalues)), LIKE, KEY, 7)
    np.testing.assert_allclose(pairs.value, [7.0] * 5 + [3.0] * 2, rtol=1e-9)
    basis = np.stack([flat(jax.tree.map(lambda x, i=i: x[i], pairs.vectors)) for i in range(7)])
    np.testing.assert_allclose(basis @ basis.T, np.eye(7), atol=1e-9)


def test_few_steps_leave_an_error_that_the_residual_bounds(x64):
    matrix = matrix_with(np.linspace(1, 2, N))
    pairs = so.top_eigenpairs(operator(matrix), LIKE, KEY, 2, steps=6)
    w = np.linalg.eigvalsh(matrix)
    for value, bound in zip(pairs.value, pairs.standard_error, strict=True):
        assert 1e-6 < bound
        assert np.min(np.abs(w - value)) <= bound


def test_the_condition_number_is_exact_with_as_many_steps_as_dimensions(x64):
    reading = so.condition_number(operator(matrix_with(SPREAD)), LIKE, KEY)
    np.testing.assert_allclose(reading.value, 1e4, rtol=1e-8)
    assert reading.standard_error < 1e-3
    short = so.condition_number(operator(matrix_with(SPREAD)), LIKE, KEY, steps=8)
    assert short.value < 1e4 and short.standard_error > 0


def test_the_condition_number_of_what_is_not_positive_definite_is_infinite(x64):
    for lowest in (-1.0, 0.0):
        eigenvalues = np.concatenate([[lowest], SPREAD[1:]])
        reading = so.condition_number(operator(matrix_with(eigenvalues)), LIKE, KEY)
        assert np.isinf(reading.value) and np.isinf(reading.standard_error)


def test_the_log_determinant_lies_within_its_standard_error(x64):
    matrix = matrix_with(SPREAD)
    op = operator(matrix)
    reading = jax.jit(lambda: so.logdet(op, LIKE, KEY, damping=0.1, samples=200))()
    exact = np.linalg.slogdet(matrix + 0.1 * np.eye(N))[1]
    assert abs(reading.value - exact) < 4 * reading.standard_error
    log = np.log(SPREAD + 0.1)  # one probe has variance 2 (‖L‖_F² − Σ Lᵢᵢ²), L = log(B + λI)
    assert reading.standard_error < np.sqrt(2 * np.sum(log**2) / 200)
    assert int(reading.products) == 200 * N


def test_the_log_determinant_of_what_is_not_positive_definite_is_nan(x64):
    eigenvalues = np.concatenate([[-1.0], SPREAD[1:]])
    assert np.isnan(so.logdet(operator(matrix_with(eigenvalues)), LIKE, KEY, samples=2).value)


def test_the_spectral_density_counts_eigenvalues(x64):
    eigenvalues = np.concatenate([np.full(15, 1.0), np.full(5, 4.0)])
    op = operator(matrix_with(eigenvalues))
    found = jax.jit(lambda: so.spectral_density(op, LIKE, KEY, samples=100, steps=8, width=0.1))()
    np.testing.assert_allclose(np.trapezoid(found.value, found.grid), 1, rtol=3e-3)
    near_four = found.grid > 2.5
    mass = np.trapezoid(found.value[near_four], found.grid[near_four])
    np.testing.assert_allclose(mass, 0.25, atol=0.05)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-9)
    peak = np.argmax(found.value)
    exact = 0.75 / (0.1 * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((found.grid[peak] - 1) / 0.1) ** 2)
    assert abs(found.value[peak] - exact) < 4 * found.standard_error[peak]


def test_float32_sees_no_eigenvalue_twice():
    matrix = matrix_with(np.concatenate([np.linspace(0, 1e-3, N - 1), [1.0]]))
    pairs = so.top_eigenpairs(operator(matrix), LIKE, KEY, 2)
    np.testing.assert_allclose(pairs.value, [1.0, 1e-3], rtol=1e-3)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda op: so.trace(op, LIKE, KEY, samples=0), "trace got samples=0"),
        (lambda op: so.diagonal(op, LIKE, KEY, samples=2.5), "diagonal got samples=2.5"),
        (lambda op: so.top_eigenpairs(op, LIKE, KEY, 30), "got count=30, but 20 steps"),
        (lambda op: so.condition_number(op, LIKE, KEY, steps=0), "got steps=0"),
        (lambda op: so.logdet(op, LIKE, KEY, steps=-1), "logdet got steps=-1"),
        (lambda op: so.spectral_density(op, LIKE, KEY, points=1), "at least 2"),
        (lambda op: so.spectral_density(op, LIKE, KEY, width=0.0), "positive number"),
        (lambda op: so.top_eigenpairs(op, {}, KEY), "without entries"),
    ],
)
def test_bad_input_gets_a_sentence(read, message):
    with pytest.raises(ValueError, match=message):
        read(operator(np.eye(N)))
