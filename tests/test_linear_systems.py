"""Linear systems with operators: against dense algebra in NumPy, statuses, and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.operators import Diagonal, Function

METHODS = ("dense", "cg", "minres")
N = 30
RNG = np.random.default_rng(3)
TURN = np.linalg.qr(RNG.normal(size=(N, N)))[0]
RHS = RNG.normal(size=N)


def symmetric(values):
    return (TURN * values) @ TURN.T


def operator_of(matrix, like):
    return Function(lambda v: matrix @ v, like)


@jax.jit
def by_all(matrix, b, damping, tolerance):
    return {
        name: so.solve(operator_of(matrix, b), b, damping, method=name, tolerance=tolerance)
        for name in METHODS
    }


SIGNS = np.where(np.arange(N) % 3, 1.0, -1.0)
SPECTRA = {
    "definite": np.geomspace(1, 1e3, N),
    "indefinite": np.geomspace(1, 1e2, N) * SIGNS,
    "two eigenvalues": 3.0 * SIGNS,
    "semidefinite": np.r_[np.zeros(4), np.geomspace(1, 50, N - 4)],
    "tiny": 1e-200 * np.geomspace(1, 10, N),
    "huge": 1e200 * np.geomspace(1, 10, N),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_a_system_is_solved_to_the_tolerance_and_to_the_damping(spectrum, x64):
    values, tolerance = SPECTRA[spectrum], 1e-10
    damping = 0.5 if spectrum == "semidefinite" else 0.0
    found = by_all(symmetric(values), RHS, damping, tolerance)
    smallest = np.min(np.abs(values + damping))
    exact = symmetric(1 / (values + damping)) @ RHS
    for name, result in found.items():
        if name == "cg" and np.any(values < 0):
            assert not result.success and result.status == so.LinearStatus.INDEFINITE
            continue
        assert bool(result.success), (name, result.message)
        residual = RHS - (symmetric(values) @ result.solution + damping * result.solution)
        rest = rounding(np.max(np.abs(values)) / smallest, np.linalg.norm(RHS))
        assert abs(np.linalg.norm(residual) - result.residual_norm) < rest
        assert result.residual_norm <= tolerance * np.linalg.norm(RHS)
        error = np.linalg.norm(smallest * (result.solution - exact))
        assert error <= 1.1 * tolerance * np.linalg.norm(RHS), name
        assert result.iterations <= (1 if name == "dense" else 5 * N)


def test_few_eigenvalues_take_as_many_iterations(x64):
    found = by_all(symmetric(SPECTRA["two eigenvalues"]), RHS, 0.0, 1e-10)
    assert found["minres"].iterations == 2 and found["minres"].products == 3
    assert found["dense"].products == N + 2
    found = by_all(symmetric(np.full(N, 2.0)), RHS, 0.0, 1e-10)
    assert found["cg"].iterations == 1 and found["minres"].iterations == 1


@pytest.mark.parametrize("negative", [False, True])
def test_a_singular_system_has_a_status_and_the_least_residual(negative, x64):
    values = np.r_[np.zeros(4), np.geomspace(1, 50, N - 4) * np.where(negative, SIGNS[4:], 1)]
    matrix = symmetric(values)
    shortest = np.linalg.pinv(matrix, rcond=1e-12) @ RHS
    least = np.linalg.norm(RHS - matrix @ shortest)
    found = by_all(matrix, RHS, 0.0, 1e-8)
    for name in ("dense", "minres"):
        assert found[name].status == so.LinearStatus.SINGULAR
        assert found[name].residual_norm == pytest.approx(least, rel=1e-6)
    assert_close(found["dense"].solution, shortest, 1e4)
    assert not found["cg"].success and np.all(np.isfinite(found["cg"].solution))
    assert found["cg"].residual_norm <= np.linalg.norm(RHS) * (1 + 1e-9)
    # A right-hand side in the range has a solution.
    for name, result in by_all(matrix, matrix @ RHS, 0.0, 1e-8).items():
        assert result.success == (name != "cg" or not negative), name


@jax.jit
def in_three_steps(matrix, b):
    limited = {
        name: so.solve(operator_of(matrix, b), b, method=name, max_steps=3)
        for name in ("cg", "minres")
    }
    return limited, so.solve(operator_of(matrix, b), b, tolerance=1e-14)


def test_other_ends_have_statuses_of_their_own(x64):
    hard, sound = symmetric(np.geomspace(1, 1e12, N)), symmetric(SPECTRA["definite"])
    limited, exact = in_three_steps(hard, RHS)
    for found in limited.values():
        assert found.status == so.LinearStatus.MAX_STEPS and found.iterations == 3
    assert exact.status == so.LinearStatus.LIMIT_OF_PRECISION
    assert exact.residual_norm < 1e-3 * np.linalg.norm(RHS)
    for nothing in by_all(hard, 0 * RHS, 0.0, 1e-8).values():
        assert bool(nothing.success) and nothing.residual_norm == 0
        assert not np.any(nothing.solution) and nothing.iterations <= 1
    for matrix, b in ((sound, RHS * np.nan), (sound, RHS * np.inf), (sound * np.nan, RHS)):
        for broken in by_all(matrix, b, 0.0, 1e-8).values():
            assert broken.status == so.LinearStatus.NONFINITE and np.isinf(broken.residual_norm)
            assert not np.any(broken.solution)
            assert broken.message.startswith("The operator or the right-hand side held NaN")
    for zero in by_all(0 * hard, RHS, 0.0, 1e-8).values():
        assert zero.status == so.LinearStatus.SINGULAR and not np.any(zero.solution)


# -------------------------------------------------------------------------------- which method

X = np.linspace(-1, 1, 60)


def features(p):
    return jnp.tanh(jnp.outer(X, p["a"]) + p["b"]) @ p["c"]


START = {
    "a": np.linspace(0.5, 2, 3),
    "b": np.array([0.1, 0.2, -0.3]),
    "c": np.array([1.0, -1, 0.5]),
}
LEAST = so.compose(so.squared_error(jnp.sin(3 * X)), features)
OWN = so.compose(lambda z: jnp.sum(jnp.cos(z)), features)
CHUNKED = so.chunked(
    lambda x: so.compose(so.squared_error(jnp.sin(3 * x)), lambda p: p["a"][0] * x + p["b"][0]),
    jnp.asarray(X), 20,
)  # fmt: skip
LEAF, EYES = (so.operators.Leaf(0, (2, 2)),), jnp.eye(2)[None]
KINDS = {
    "ggn": (lambda: so.ggn(LEAST, START), True),
    "fisher": (lambda: so.fisher(LEAST, START, jax.random.key(0)), True),
    "empirical_fisher": (lambda: so.empirical_fisher(LEAST, START), True),
    "damped ggn": (lambda: so.ggn(LEAST, START).damped(1e-2), True),
    "chunked ggn": (lambda: so.ggn(CHUNKED, START), True),
    "scaled ggn": (lambda: 2.0 * so.ggn(LEAST, START), True),
    "ggn with another sign": (lambda: -1.0 * so.ggn(LEAST, START), False),
    "ggn of a loss of one's own": (lambda: so.ggn(OWN, START), False),
    "kronecker": (lambda: so.operators.Kronecker(LEAF, ((EYES, EYES),)), True),
    "kronecker in eigenbases": (lambda: so.operators.KroneckerEigen(LEAF, ((EYES,),), EYES), True),
    "hessian": (lambda: so.hessian(LEAST, START), False),
    "ggn and hessian": (lambda: so.ggn(LEAST, START) + so.hessian(LEAST, START), False),
    "chunked hessian": (lambda: so.hessian(CHUNKED, START), False),
}


@pytest.mark.quick(4)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_semidefinite_by_its_form_is_known(kind):
    make, expected = KINDS[kind]
    assert make().semidefinite is expected


def test_the_method_follows_from_size_and_form(x64):
    n = so.linear_systems.DENSE_LIMIT + 1
    ones, entries = jnp.ones(n), jnp.linspace(1.0, 2.0, n)
    semidefinite = so.solve(so.operators.PositiveDiagonal(entries), ones)
    indefinite = so.solve(Diagonal(entries), ones)
    small = so.solve(Diagonal(entries[1:]), ones[1:])
    assert small.iterations == 1 and small.products == n + 1
    for found in (semidefinite, indefinite):
        assert bool(found.success) and 1 < found.iterations < 40
    residual = lambda name: so.solve(Diagonal(entries), ones, method=name).residual_norm
    assert semidefinite.residual_norm == residual("cg") != residual("minres")
    assert indefinite.residual_norm == residual("minres")


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("curvature", [so.ggn, so.hessian])
def test_trees_are_solved_with_the_curvature_of_an_objective(curvature, name, x64):
    op = curvature(LEAST, START)
    b, back = jax.flatten_util.ravel_pytree(jax.grad(LEAST)(START))
    matrix = so.dense(op, START) + 2.0 * np.eye(b.size)
    found = jax.jit(lambda b: so.solve(op, b, 2.0, method=name, tolerance=1e-12))(back(b))
    assert jax.tree.structure(found.solution) == jax.tree.structure(START)
    x = jax.flatten_util.ravel_pytree(found.solution)[0]
    assert bool(found.success)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-8, atol=rounding(1e5))


# ------------------------------------------------------------------------------ preconditioners


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["cg", "minres"])
def test_a_preconditioner_saves_iterations_and_changes_no_solution(name, x64):
    values = np.r_[np.geomspace(1e3, 1e5, 8), np.linspace(1, 2, N - 8)]
    matrix = symmetric(values)
    op, exact = operator_of(matrix, RHS), symmetric(1 / values) @ RHS
    known = so.operators.Preconditioned(op, Diagonal(jnp.diag(matrix)))
    inverse = np.linalg.inv(matrix + 0.01 * TURN @ np.diag(np.arange(N)) @ TURN.T)
    runs = {
        "none": None,
        "sketch": so.solvers.nystrom(12),
        "own": lambda quadratic, damping: lambda r: inverse @ r,
        "known": so.solvers.known_inverse(),
    }
    found = jax.jit(
        lambda b: {
            key: so.solve(known, b, method=name, preconditioner=how, tolerance=1e-10)
            for key, how in runs.items()
        }
    )(RHS)
    for key, result in found.items():
        assert bool(result.success), key
        np.testing.assert_allclose(result.solution, exact, rtol=1e-6, atol=1e-8)
    assert found["own"].iterations < found["sketch"].iterations < found["none"].iterations
    assert found["sketch"].products >= found["sketch"].iterations + 12


@pytest.mark.parametrize("name", ["cg", "minres"])
def test_an_indefinite_preconditioner_is_found_out(name, x64):
    op = operator_of(symmetric(SPECTRA["definite"]), RHS)
    wrong = lambda quadratic, damping: lambda r: symmetric(SIGNS) @ r
    found = so.solve(op, RHS, method=name, preconditioner=wrong)
    assert found.status == so.LinearStatus.INDEFINITE
    assert np.all(np.isfinite(found.solution))


# ---------------------------------------------------------------------------------- derivatives


def of_theta(theta, b, damping, name):
    """A system whose matrix depends on ``theta`` through the curvature of a function."""
    f = lambda p: jnp.sum(jnp.cosh(p["x"] * theta)) + 0.5 * (jnp.sum(p["x"]) * p["y"][0]) ** 2
    point = {"x": jnp.array([0.3, -0.2, 0.5]), "y": jnp.array([1.5])}
    op = so.hessian(f, point).damped(1.0)
    return so.solve(op, b, damping, method=name, tolerance=1e-14).solution


def by_numpy(theta, b, damping):
    f = lambda v: jnp.sum(jnp.cosh(v[:3] * theta)) + 0.5 * (jnp.sum(v[:3]) * v[3]) ** 2
    matrix = jax.hessian(f)(jnp.array([0.3, -0.2, 0.5, 1.5]))
    return jnp.linalg.solve(matrix + (1 + damping) * jnp.eye(4), jnp.concatenate([b["x"], b["y"]]))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", METHODS)
def test_derivatives_are_those_of_the_dense_solve(name, x64):
    b = {"x": jnp.array([1.0, 2.0, -1.0]), "y": jnp.array([0.7])}
    point = jnp.array([1.0, 0.8, 1.3]), b, jnp.asarray(0.4)
    weights = jnp.array([1.0, -2.0, 0.5, 3.0])
    joined = lambda x: jnp.concatenate([x["x"], x["y"]])
    ours = lambda *args: jnp.sum(jnp.sin(weights * joined(of_theta(*args, name))))
    exact = lambda *args: jnp.sum(jnp.sin(weights * by_numpy(*args)))
    close = lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-8, atol=rounding(1e5))
    reverse, expected = (jax.jit(jax.grad(fn, (0, 1, 2)))(*point) for fn in (ours, exact))
    jax.tree.map(close, reverse, expected)
    tangents = jax.tree.map(lambda x: 0.3 + 0.1 * x, point)
    pushed, wanted = (
        jax.jit(lambda t, fn=fn: jax.jvp(fn, point, t))(tangents) for fn in (ours, exact)
    )
    jax.tree.map(close, pushed, wanted)
    second, right = (
        jax.jit(jax.jacfwd(jax.grad(lambda t, fn=fn: fn(t, *point[1:]))))(point[0])
        for fn in (ours, exact)
    )
    close(second, right)


def test_counts_and_residual_have_no_derivative(x64):
    def report(b):
        found = so.solve(operator_of(symmetric(SPECTRA["definite"]), b), b, method="cg")
        return found.residual_norm + found.iterations

    assert not np.any(jax.grad(report)(jnp.asarray(RHS)))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", METHODS)
def test_several_right_hand_sides_and_several_matrices(name, x64):
    many = RNG.normal(size=(4, N)) * np.array([1.0, 1e-30, 0.0, 1e30])[:, None]
    matrix = symmetric(SPECTRA["definite"])
    one = lambda matrix, b: so.solve(operator_of(matrix, b), b, method=name, tolerance=1e-10)
    found = jax.jit(jax.vmap(one, (None, 0)))(matrix, many)
    exact = np.linalg.solve(matrix, many.T).T
    assert found.success.all() and found.iterations.shape == (4,)
    for x, right in zip(found.solution, exact, strict=True):
        np.testing.assert_allclose(x, right, atol=1e-8 * np.max(np.abs(right)))
    found = jax.vmap(one, (0, None))(np.stack([matrix, 2 * matrix]), RHS)
    np.testing.assert_allclose(found.solution[0], 2 * found.solution[1], rtol=1e-6, atol=1e-8)
    slope = jax.grad(lambda m: jnp.sum(jax.vmap(one, (None, 0))(m, many[:1]).solution))(matrix)
    weights = np.linalg.solve(matrix, np.ones(N))
    np.testing.assert_allclose(slope, -np.outer(weights, exact[0]), atol=1e-7)


# ------------------------------------------------------------------------------ precisions, misuse


@pytest.mark.quick(1)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", METHODS)
def test_low_precisions_are_solved_in_float32(name, dtype):
    b = jnp.asarray(RHS, dtype)
    found = so.solve(
        operator_of(jnp.asarray(symmetric(SPECTRA["two eigenvalues"] ** 2)), b), b, method=name
    )
    assert found.solution.dtype == dtype and found.residual_norm.dtype == "float32"
    assert bool(found.success)
    np.testing.assert_allclose(np.asarray(found.solution, float), RHS / 9, atol=2e-2)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", METHODS)
def test_leaves_keep_their_precisions_and_a_scalar_is_a_tree(name, x64):
    b = {"a": jnp.ones(2, "float32"), "b": jnp.ones((2, 1))}
    op = Diagonal({"a": jnp.full(2, 2.0, "float32"), "b": jnp.full((2, 1), 4.0)})
    found = so.solve(op, b, method=name)
    assert bool(found.success) and jax.tree.map(lambda x: x.dtype, found.solution) == {
        "a": jnp.float32, "b": jnp.float64,
    }  # fmt: skip
    np.testing.assert_allclose(found.solution["b"], 0.25, rtol=1e-3)
    alone = so.solve(
        so.hessian(lambda p: 2 * p**2, jnp.array(1.0)), jnp.array(3.0), 2.0, method=name
    )
    assert alone.solution == pytest.approx(0.5)


def test_an_empty_tree_has_an_empty_solution():
    for name in METHODS:
        found = so.solve(Diagonal({}), {}, method=name)
        assert found.solution == {} and bool(found.success)


OP = Diagonal(jnp.ones(3))
MISUSES = {
    "no operator": (lambda: so.solve(jnp.eye(3), jnp.ones(3)), TypeError, "needs an operator"),
    "integers": (lambda: so.solve(OP, jnp.arange(3)), TypeError, r"rhs has dtype int32"),
    "another shape": (lambda: so.solve(OP, jnp.ones(4)), ValueError, r"shape \(4,\)"),
    "another tree": (lambda: so.solve(OP, {"a": jnp.ones(3)}), ValueError, "tree structure"),
    "a name": (lambda: so.solve(OP, jnp.ones(3), method="gmres"), ValueError, "dense, cg, minres"),
    "damping": (lambda: so.solve(OP, jnp.ones(3), -1.0), ValueError, "damping=-1.0; pass a number"),
    "tolerance": (lambda: so.solve(OP, jnp.ones(3), tolerance=0.0), ValueError, "tolerance=0.0"),
    "steps": (lambda: so.solve(OP, jnp.ones(3), max_steps=0), ValueError, "max_steps=0"),
    "preconditioner": (
        lambda: so.solve(OP, jnp.ones(3), preconditioner=3), TypeError, "preconditioner=3",
    ),
    "dense preconditioner": (
        lambda: so.solve(OP, jnp.ones(3), method="dense", preconditioner=so.solvers.nystrom(2)),
        ValueError, "which has no iterations",
    ),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES)
def test_bad_input_gets_a_sentence(misuse):
    call, error, sentence = MISUSES[misuse]
    with pytest.raises(error, match=sentence):
        call()
