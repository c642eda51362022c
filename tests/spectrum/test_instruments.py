"""Every instrument against the dense matrix: within its own standard error, or exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

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


@pytest.mark.slow
def test_more_samples_extend_the_draw(x64):
    op = operator(matrix_with(SPREAD))
    one = so.trace(op, LIKE, jax.random.key(0), samples=1).value
    other = tree_probe(op, jax.random.fold_in(jax.random.key(0), 1))
    two = so.trace(op, LIKE, jax.random.key(0), samples=2).value
    assert_close(two, (one + other) / 2)


def tree_probe(op, key):
    z = so.tree.random_signs(key, LIKE)
    return so.tree.vdot(z, op.mv(z))


@pytest.mark.quick(1)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_top_eigenpairs_are_those_of_the_dense_matrix_and_of_its_negative_the_smallest(x64, sign):
    eigenvalues = np.concatenate([-np.geomspace(0.1, 10, N // 2), np.geomspace(0.2, 30, N // 2)])
    matrix = matrix_with(eigenvalues)
    op = sign * operator(matrix)
    pairs = jax.jit(lambda: so.top_eigenpairs(op, LIKE, KEY, 3))()
    w, v = np.linalg.eigh(sign * matrix)
    assert_close(pairs.value, w[::-1][:3], N)  # of so many products
    for i in range(3):
        found = flat(jax.tree.map(lambda x, i=i: x[i], pairs.vectors))
        assert_close(abs(found @ v[:, -1 - i]), 1, 30)
    assert int(pairs.products) == N  # never more than the dimension


def test_eigenvalues_are_found_as_often_as_they_occur(x64):
    eigenvalues = np.repeat([1.0, 2.0, 3.0, 7.0], N // 4)
    pairs = so.top_eigenpairs(operator(matrix_with(eigenvalues)), LIKE, KEY, 7)
    assert_close(pairs.value, [7.0] * 5 + [3.0] * 2, N)
    basis = np.stack([flat(jax.tree.map(lambda x, i=i: x[i], pairs.vectors)) for i in range(7)])
    assert_close(basis @ basis.T, np.eye(7), 7)


@pytest.mark.slow
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
    assert_close(found.weights.sum(axis=1), np.ones(100))
    peak = np.argmax(found.value)
    exact = 0.75 / (0.1 * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((found.grid[peak] - 1) / 0.1) ** 2)
    assert abs(found.value[peak] - exact) < 4 * found.standard_error[peak]


@pytest.mark.slow
def test_float32_sees_no_eigenvalue_twice():
    matrix = matrix_with(np.concatenate([np.linspace(0, 1e-3, N - 1), [1.0]]))
    pairs = so.top_eigenpairs(operator(matrix), LIKE, KEY, 2)
    np.testing.assert_allclose(pairs.value, [1.0, 1e-3], rtol=1e-3)


@pytest.mark.quick(4)
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


# ------------------------------------------------- repeated eigenvalues, sizes, honest errors


def rotated(eigenvalues, seed=0):
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return q @ np.diag(eigenvalues) @ q.T


def repeated(n):
    """Positive definite matrices with repeated eigenvalues, then singular ones."""
    noise, half = np.random.default_rng(n).standard_normal(n), n // 2
    definite = [
        np.eye(n),
        np.eye(n) / 3,
        np.eye(n) + np.ones((n, n)),
        np.eye(n) + np.outer(noise, noise),
        np.diag(np.repeat([1.0, 4.0], [half, n - half])),
        rotated(np.resize([1.0, 2.0, 5.0], n)),
    ]
    singular = [np.zeros((n, n)), rotated(np.repeat([1.0, 0.0], [half, n - half]))]
    singular.append(rotated(np.concatenate([np.zeros(n - half), np.linspace(1, 2, half)])))
    return definite, singular


def quadratic(matrix):
    like = jnp.zeros(matrix.shape[0], matrix.dtype)
    return so.hessian(lambda p: 0.5 * jnp.vdot(p, matrix @ p), like), like


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("precision", "n"),
    [(jnp.float32, 1), (jnp.float32, 2), (jnp.float32, 8), (jnp.float32, 33), (jnp.float64, 3)],
)
def test_small_matrices_show_their_eigenvalues_and_no_others_for_every_key(x64, precision, n):
    eps = float(jnp.finfo(precision).eps)
    definite, singular = repeated(n)
    sizes = [1.0, 1e-20, 1e20]
    stack = np.stack([m * s for m in definite + singular for s in sizes])
    matrices = jnp.asarray(stack, precision)
    keys = jax.random.split(jax.random.key(0), 24 if n < 10 else 4)

    def read(matrix, key):
        op, like = quadratic(matrix)
        pairs = so.top_eigenpairs(op, like, key, n, steps=n)
        density = so.spectral_density(op, like, key, samples=2, points=16)
        determinant = so.logdet(op, like, key, samples=8)
        kappa = so.condition_number(op, like, key)
        return pairs[:2], kappa[:2], (density.grid[0], density.grid[-1]), determinant.value

    over_keys = lambda matrix: jax.lax.map(lambda key: read(matrix, key), keys)
    found = jax.jit(lambda matrices: jax.lax.map(over_keys, matrices))(matrices)
    (w, errors), (kappa, doubt), (low, high), determinant = jax.tree.map(
        lambda x: np.asarray(x, float), found
    )
    exact = np.linalg.eigvalsh(np.asarray(matrices, float))[:, ::-1]
    top = np.abs(exact).max(axis=1)
    slack = 100 * eps * top
    assert np.all(np.abs(w - exact[:, None]) <= slack[:, None, None])
    own = 100 * np.finfo(float).eps * top[:, None, None]  # the oracle's rounding
    assert np.all(np.abs(w - exact[:, None]) <= errors + own)
    width = np.maximum(1e-3 * top, exact[:, 0] - exact[:, -1])
    room = slack + 0.1 * np.where(top > 0, width, 1)
    assert np.all(low >= (exact[:, -1] - room)[:, None])
    assert np.all(high <= (exact[:, 0] + room)[:, None])
    split = len(definite) * len(sizes)
    ratio = (exact[:split, 0] / exact[:split, -1])[:, None]
    assert np.all(np.abs(kappa[:split] - ratio) <= 100 * eps * ratio**2)
    own = 200 * np.finfo(float).eps * ratio**2
    assert np.all(np.abs(kappa[:split] - ratio) <= doubt[:split] + own)
    assert np.all(np.isfinite(determinant[:split]))
    assert np.all(np.isinf(kappa[split:])) and np.all(np.isnan(determinant[split:]))


@pytest.mark.slow
def test_errors_scale_with_the_operator_where_their_squares_under_or_overflow():
    matrix = jnp.asarray(matrix_with(SPREAD) / 100, jnp.float32)

    @jax.jit
    def errors(size):
        op, like = quadratic(size * matrix)
        width = 0.01 * size
        density = so.spectral_density(op, like, KEY, steps=8, points=16, width=width)
        trace, diagonal = so.trace(op, like, KEY), so.diagonal(op, like, KEY)
        pairs = so.top_eigenpairs(op, like, KEY, 3, steps=8)
        return (trace[:2], diagonal[:2], pairs[:2]), (density.value, density.standard_error)

    plain = errors(jnp.float32(1))
    for size in (1e-30, 1e-20, 1e19, 1e30):
        linear, inverse = errors(jnp.float32(size))
        back = so.tree.scale(1 / size, linear), so.tree.scale(size, inverse)
        for got, expected in zip(jax.tree.leaves(back), jax.tree.leaves(plain), strict=True):
            scale = float(jnp.max(jnp.abs(expected)))
            assert scale > 0
            np.testing.assert_allclose(got, expected, rtol=1e-2, atol=1e-3 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_part_of_the_error(precision):
    matrix = jnp.diag(jnp.geomspace(1, 100, 12)).astype(precision)
    exact = np.sort(np.diag(np.asarray(matrix, float)))[::-1]
    op, like = quadratic(matrix)

    @jax.jit
    def read(key):
        pairs, kappa = so.top_eigenpairs(op, like, key, 12), so.condition_number(op, like, key)
        return pairs[:2], kappa[:2], so.trace(op, like, key)[:2]

    keys = jax.random.split(KEY, 16)
    (w, error), (kappa, doubt), (trace, spread) = jax.lax.map(read, keys)
    assert np.all(np.abs(w - exact) <= error)
    assert np.all((np.abs(kappa - 100) <= doubt) | np.isinf(kappa))
    assert np.all(np.abs(trace - exact.sum()) <= spread)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 10, 20])
def test_the_error_of_few_steps_covers_what_is_left_open(steps):
    # Eigenvalues that few steps do not reach, and ones that ten do.
    spectra = [np.geomspace(1e-3, 1, 60), np.linspace(1e-3, 1, 60), np.r_[1e-3, np.ones(59)]]
    spectra.append(np.r_[np.linspace(1, 2, 59), 1e3])
    matrices = jnp.asarray(np.stack([rotated(w, seed) for seed, w in enumerate(spectra)]))
    keys = jax.random.split(KEY, 24)

    def read(matrix, key):
        op, like = quadratic(matrix)
        kappa = so.condition_number(op, like, key, steps=steps)
        return kappa[:2], so.logdet(op, like, key, steps=steps)[:2]

    over_keys = lambda matrix: jax.lax.map(lambda key: read(matrix, key), keys)
    (kappa, most), (value, error) = jax.jit(lambda m: jax.lax.map(over_keys, m))(matrices)
    w = np.linalg.eigvalsh(np.asarray(matrices, float))
    truth = (w[:, -1] / w[:, 0])[:, None]
    rounding = 100 * float(jnp.finfo(jnp.float32).eps) * truth**2
    assert np.all(kappa <= truth + rounding)
    assert np.mean(truth <= kappa + most) >= 0.95  # 0.98 are promised, and most are far below
    assert np.all(np.isfinite(most[2:])) or steps == 3
    assert np.mean(np.abs(value - np.log(w).sum(axis=1)[:, None]) <= 3 * error) >= 0.95


def test_a_start_of_signs_orthogonal_to_the_top_vector_does_not_hide_it():
    op, like = quadratic(jnp.eye(64) + jnp.ones((64, 64)))
    keys = jax.random.split(KEY, 16)
    read = jax.jit(lambda key: so.top_eigenpairs(op, like, key, 1, steps=4).value[0])
    np.testing.assert_allclose(jax.lax.map(read, keys), 65, rtol=1e-4)


@pytest.mark.slow
def test_results_and_operators_print_in_a_line_whatever_their_size():
    params, keep = jnp.ones(500), jnp.arange(500.0)
    H = so.hessian(lambda p: jnp.sum(keep * p**2), params)
    top = so.top_eigenpairs(H, params, KEY, 2, steps=5)
    pairs = top._replace(vectors={"a": top.vectors, "b": top.vectors})
    reading, rows = so.trace(H, params, KEY, samples=2), so.diagonal(H, params, KEY, samples=2)
    density = so.spectral_density(H, params, KEY, samples=1, steps=3, points=9)
    shown = [repr(x) for x in (pairs, reading, rows, density, H, 2.0 * H + H)]
    assert all(len(text) < 400 and "\n" not in text for text in shown)
    assert "vectors=a tree of 2 arrays" in shown[0] and f"{float(top.value[0]):.3f}"[:3] in shown[0]
    assert "products=2" in shown[1] and "value=float32[500]" in shown[2]
    assert "value=float32[9]" in shown[3]
    texts = []
    jax.jit(lambda p: texts.append(repr(so.spectrum.Reading(p, p, p))))(params)
    assert texts[0].startswith("Reading(value=float32[500]")
