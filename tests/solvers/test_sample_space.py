"""The damped Gauss-Newton step in the space of the parameters or of the samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.solvers import Stop, cg, geodesic, nystrom, relative_residual, sample_space
from tests import oracles, problems

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
WIDE, TALL = RNG.normal(size=(5, 9)), RNG.normal(size=(9, 5))


def linear(matrix, targets=None):
    """½‖A p − t‖², of as many parameters as A has columns, and where to start."""
    targets = np.arange(1.0, len(matrix) + 1) if targets is None else targets
    return so.sum_of_squares(lambda p: matrix @ p - targets), jnp.ones(matrix.shape[1])


def solved(f, p, damping, solver=None, state=None):
    """One program: op by op, most of the time would go into compiling each of them."""
    solver = sample_space() if solver is None else solver
    state = solver.init(p) if state is None else state

    @jax.jit
    def update(p, state, damping):
        return solver.update(so.Quadratic(jax.grad(f)(p), so.ggn(f, p)), state, damping)

    return update(p, state, jnp.asarray(damping, float))


def expected(f, p, damping):
    """``−(JᵀMJ + λ I)⁻¹ g`` written out, and the condition of the system."""

    @jax.jit
    def parts(p):
        loss, x = oracles.on_vectors(f.loss, f.model(p))
        return oracles.jacobian(f.model, p), jax.hessian(loss)(x), jax.grad(loss)(x)

    j, m, slope = map(np.asarray, parts(p))
    system = j.T @ m @ j + damping * np.eye(j.shape[1])
    return -np.linalg.solve(system, j.T @ slope), np.linalg.cond(system)


@pytest.mark.quick(2)
@pytest.mark.parametrize("matrix", [WIDE, TALL], ids=["fewer samples", "more samples"])
@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_a_step_is_the_same_in_either_space(matrix, damping):
    f, p = linear(matrix)
    step, _ = solved(f, p, damping)
    reference, kappa = expected(f, p, damping)
    assert_close(step.direction, reference, kappa)
    assert step.report.dimension == 5 and step.report.stopped == Stop.SOLVED
    # Rows of zeros add samples, columns of zeros parameters: the other space has to be taken.
    more = np.pad(matrix, ((0, 9), (0, 0)))
    padded, _ = solved(*linear(more, np.pad(np.arange(1.0, len(matrix) + 1), (0, 9))), damping)
    assert_close(padded.direction, step.direction, kappa)


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", sorted(set(problems.SPLIT) - {"soft_l1_fit", "cauchy_fit"}))
def test_any_convex_loss_and_tree_of_outputs_gives_the_dense_step(name):
    problem = problems.SPLIT[name](jnp.float64)
    step, _ = solved(problem.objective, problem.params, 1e-2)
    found = oracles.flat(step.direction)
    reference, kappa = expected(problem.objective, problem.params, 1e-2)
    assert_close(found, reference, kappa)
    f = problem.objective
    model = jax.jit(lambda p, d: so.Quadratic(jax.grad(f)(p), so.ggn(f, p))(d))
    predicted = model(problem.params, step.direction)
    np.testing.assert_allclose(step.predicted, predicted, rtol=1e-8)


@pytest.mark.parametrize("damping", [0.0, 1e-2])
@pytest.mark.parametrize("matrix", [WIDE, TALL], ids=["fewer samples", "more samples"])
def test_repeated_samples_do_no_harm(matrix, damping):
    twice = np.concatenate([matrix, matrix[:3]])
    targets = np.concatenate([np.arange(1.0, len(matrix) + 1), [1.0, 2, 3]])
    f, p = linear(twice, targets)
    step, _ = solved(f, p, damping)
    j, r = twice, np.asarray(twice @ p - targets)
    u, s, vt = np.linalg.svd(j, full_matrices=False)
    kept = s > 1e-10 * s[0]
    weights = np.where(kept, s / np.where(kept, s**2 + damping, 1), 0)
    np.testing.assert_allclose(step.direction, -vt.T @ (weights * (u.T @ r)), rtol=1e-7)
    is_singular = len(matrix) < matrix.shape[1] and damping == 0
    assert step.report.stopped == (Stop.SINGULAR if is_singular else Stop.SOLVED)


def test_many_parameters_in_single_precision_do_not_cost_small_directions():
    # Rounding of a Gram is a matter of its own size, 8, not of the 20,000 parameters: of the
    # eigenvalues here, 1 to 1e-4, all are above it, and λ is too.
    q = np.linalg.qr(RNG.normal(size=(20_000, 8)))[0].T
    u = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    matrix = u @ np.diag(np.logspace(0, -2, 8)) @ q
    f, p = linear(matrix, np.ones(8))
    low = jnp.asarray(matrix, jnp.float32)
    single = so.sum_of_squares(lambda p: low @ p - jnp.ones(8, jnp.float32))
    for damping in (1e-5, 1e-4):
        step, _ = solved(single, jnp.zeros(20_000, jnp.float32), np.float32(damping))
        exact, _ = solved(f, jnp.zeros(20_000), damping)
        assert step.report.stopped == Stop.SOLVED
        error = jnp.linalg.norm(step.direction - exact.direction)
        assert error < 1e-2 * jnp.linalg.norm(exact.direction)


def test_one_sample_is_enough_for_a_step():
    f, p = linear(WIDE[:1])
    step, _ = solved(f, p, 1e-3)
    assert step.report.dimension == 1
    assert_close(step.direction, *expected(f, p, 1e-3))


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 40], ids=["fewer samples", "more samples"])
def test_chunks_give_the_step_of_the_whole(count):
    x = np.random.default_rng(1).normal(size=(count, 3))
    batch = {"x": x, "y": np.arange(count) % 2.0}

    def model(p, x):
        return jnp.tanh(x @ p["a"]) @ p["b"]

    of = lambda b: so.compose(so.sigmoid_cross_entropy(b["y"]), lambda p: model(p, b["x"]))
    params = {"a": jnp.asarray(RNG.normal(size=(3, 2))), "b": jnp.asarray(RNG.normal(size=2))}
    whole, _ = solved(of(batch), params, 1e-3, sample_space(0.5))
    parts, _ = solved(so.chunked(of, batch, 2), params, 1e-3, sample_space(0.5))
    np.testing.assert_allclose(
        oracles.flat(parts.direction), oracles.flat(whole.direction), rtol=1e-8
    )
    np.testing.assert_allclose(parts.predicted, whole.predicted, rtol=1e-8)
    assert parts.report.dimension == whole.report.dimension == min(count, 8)


def test_the_grams_of_chunks_hold_the_rows_of_two_chunks_at_most():
    batch = {"x": np.zeros(64)}
    of = lambda b: so.sum_of_squares(lambda p: jnp.cos(b["x"][:, None] * jnp.arange(3000.0)) @ p)
    params = jnp.zeros(3000)

    def gram(chunk_size):
        f = so.chunked(of, batch, chunk_size, mean=False)
        return jax.jit(lambda p: so.ggn(f, p).rows().sample_gram())

    memory = lambda size: gram(size).lower(params).compile().memory_analysis().temp_size_in_bytes
    assert memory(4) < 0.4 * memory(64)
    np.testing.assert_allclose(gram(4)(params), np.full((64, 64), 3000.0))


@pytest.mark.quick(1)
@pytest.mark.parametrize("matrix", [WIDE, TALL], ids=["fewer samples", "more samples"])
def test_momentum_is_springs_recursion(matrix):
    """φₖ = argmin ‖A φ + rₖ‖² + λ‖φ − μ φₖ₋₁‖², by its normal equations, each batch another A."""
    damping, mu, solver = 0.1, 0.9, sample_space(0.9)
    rng, p = np.random.default_rng(2), np.ones(matrix.shape[1])
    state, last = solver.init(p), np.zeros(matrix.shape[1])
    for _ in range(6):
        a = rng.normal(size=matrix.shape)
        f, _ = linear(a)
        step, state = solved(f, p, damping, solver, state)
        r = a @ p - np.arange(1.0, len(a) + 1)
        system = a.T @ a + damping * np.eye(a.shape[1])
        last = np.linalg.solve(system, -a.T @ r + damping * mu * last)
        assert a.T @ r @ last < 0  # else momentum is left out
        np.testing.assert_allclose(step.direction, last, rtol=1e-8)
        p = p + 0.1 * np.asarray(step.direction)


def test_a_relative_damping_has_no_units():
    f, p = linear(WIDE)
    steps = [
        solved(linear(c * WIDE, c * np.arange(1.0, 6))[0], p, 1e-3, sample_space(relative=True))[0]
        for c in (1.0, 1e6)
    ]
    reference, kappa = expected(f, p, 1e-3 * np.sum(WIDE**2))
    for step in steps:
        assert_close(step.direction, reference, kappa)


def test_momentum_that_goes_uphill_is_left_out():
    f, p = linear(TALL)
    plain, state = solved(f, p, 0.1)
    uphill = state._replace(step=-1e3 * plain.direction)
    step, _ = solved(f, p, 0.1, sample_space(0.9), uphill)
    assert_close(step.direction, plain.direction, np.linalg.cond(TALL.T @ TALL + 0.1 * np.eye(5)))


@pytest.mark.slow
def test_momentum_fades_where_the_damping_rises():
    f, p = linear(WIDE)
    _, state = solved(f, p, 0.1)
    sideways = jnp.asarray(np.linalg.svd(WIDE)[2][-1])  # the rows do not see it
    state = state._replace(step=sideways)
    along = lambda damping: solved(f, p, damping, sample_space(0.9), state)[0].direction @ sideways
    kappa = 1 + np.linalg.norm(WIDE, 2) ** 2 / 0.1
    assert_close(along(0.1), 0.9, kappa)
    assert_close(along(1.0), 0.9 / 100, kappa, norm=1)


def test_the_bend_solves_for_the_second_derivative_along_the_step():
    x = np.linspace(0, 2, 7)
    f = so.sum_of_squares(lambda p: p[0] * jnp.exp(p[1] * x) - 2 * np.exp(0.5 * x))
    p, damping = jnp.array([1.5, 0.6]), 0.3
    step, _ = solved(f, p, damping, geodesic(sample_space(), 3))
    derivatives = jax.jit(lambda p: (jax.jacobian(f.model)(p), jax.hessian(f.model)(p)))
    j, bend = map(np.asarray, derivatives(p))
    second = np.einsum("mij,i,j->m", bend, step.direction, step.direction)
    a = -np.linalg.solve(j.T @ j + damping * np.eye(2), j.T @ second)
    np.testing.assert_allclose(step.candidates.terms[0], a, rtol=1e-8)


def test_a_loss_that_is_not_convex_is_made_so_and_flagged():
    f = so.compose(lambda z: jnp.sum(jnp.cos(z)), lambda p: WIDE @ p)
    p = jnp.full(9, 0.1)
    step, _ = solved(f, p, 1e-1)
    assert step.report.stopped == Stop.NEGATIVE_CURVATURE
    assert step.direction @ jax.grad(f)(p) < 0 and step.predicted < 0


@pytest.mark.parametrize("matrix", [WIDE, TALL], ids=["fewer samples", "more samples"])
def test_a_nan_is_reported(matrix):
    f, p = linear(np.where(matrix == matrix[0, 0], np.nan, matrix))
    step, _ = solved(f, p, 1e-3)
    assert step.report.stopped == Stop.NONFINITE


def test_a_curvature_without_rows_is_refused():
    f, p = linear(TALL)
    with pytest.raises(TypeError, match=r"needs the rows .* exact\(ggn\)"):
        sample_space().update(
            so.Quadratic(p, so.hessian(f, p)), sample_space().init(p), jnp.ones(())
        )


# By products alone

TIGHT = cg(100, relative_residual(1e-13), nystrom(3))


@pytest.mark.quick(1)
@pytest.mark.parametrize("matrix", [WIDE, TALL], ids=["fewer samples", "more samples"])
@pytest.mark.parametrize("relative", [False, True])
def test_an_inner_solver_gives_the_step_without_a_gram(matrix, relative):
    # Rows at right angles: then random signs give the trace as it is.
    turn = np.linalg.qr(RNG.normal(size=(9, 9)))[0]
    sizes = np.arange(1.0, len(matrix) + 1)
    rows = sizes[:, None] * turn[: len(matrix), : matrix.shape[1]]
    rows = rows if len(matrix) < 9 else np.pad(sizes[:5, None] * np.eye(5), ((0, 4), (0, 0)))
    f, p = linear(rows)
    step, _ = solved(f, p, 1e-3, sample_space(relative=relative, solver=TIGHT))
    damping = 1e-3 * (np.sum(rows**2) if relative else 1)
    reference, kappa = expected(f, p, damping)
    assert_close(step.direction, reference, kappa, c=1e3)  # `TIGHT` is 450 ε
    assert (
        step.report.dimension == 5
        and step.report.stopped == Stop.SOLVED
        and step.report.jacobians == 0
    )
    assert step.report.residual < rounding(kappa)
    # The sketch, the iterations, one for the residual; and half a product for each sign.
    assert step.report.products == 3 + step.report.iterations + 1 + (4 if relative else 0)


@pytest.mark.quick(1)
@pytest.mark.parametrize("matrix", [WIDE, TALL], ids=["fewer samples", "more samples"])
def test_one_sketch_serves_the_step_its_momentum_and_its_bends(matrix):
    f = so.sum_of_squares(lambda p: jnp.sinh(0.3 * matrix @ p) - 1)
    p = jnp.linspace(-0.5, 0.5, matrix.shape[1])
    state = solved(f, p, 0.1, sample_space(0.9))[1]
    kinds = {}
    for solver in (None, TIGHT):
        method = geodesic(sample_space(0.9, solver=solver), 3)
        start = method.init(p)
        start = start._replace(step=state.step, damping=state.damping)
        kinds[solver] = solved(f, p, 0.1, method, start)
    (step, after), (reference, _) = kinds[TIGHT], kinds[None]
    kappa = 1 + 0.3**2 * np.cosh(1) ** 2 * np.linalg.norm(matrix, 2) ** 2 / 0.1
    np.testing.assert_allclose(step.direction, reference.direction, rtol=1e-8)
    paths = step.candidates.terms, reference.candidates.terms
    for bend, other in zip(*paths, strict=True):
        assert_close(bend, other, kappa**2, c=1e3)  # a bend is solved for with those before
    np.testing.assert_allclose(step.predicted, reference.predicted, rtol=1e-8)
    assert step.report.products == 3 + step.report.iterations + 4  # four systems
    assert step.report.residual < 1e-9
    assert jax.tree.structure(after) == jax.tree.structure(sample_space(solver=TIGHT).init(p))


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 40], ids=["fewer samples", "more samples"])
def test_an_inner_solver_takes_chunks_and_any_convex_loss(count):
    x = np.random.default_rng(1).normal(size=(count, 3))
    batch = {"x": x, "y": np.arange(count) % 2.0}
    of = lambda b: so.compose(
        so.sigmoid_cross_entropy(b["y"]), lambda p: jnp.tanh(b["x"] @ p["a"]) @ p["b"]
    )
    params = {"a": jnp.asarray(RNG.normal(size=(3, 2))), "b": jnp.asarray(RNG.normal(size=2))}
    reference, _ = solved(of(batch), params, 1e-3)
    for f in (of(batch), so.chunked(of, batch, 2)):
        step, _ = solved(f, params, 1e-3, sample_space(solver=TIGHT))
        np.testing.assert_allclose(
            oracles.flat(step.direction), oracles.flat(reference.direction), rtol=1e-8
        )


def test_what_the_rows_do_not_explain_is_solved_for_too():
    f, p = linear(WIDE)
    more = np.linspace(-1.0, 1.0, 9)  # as of a clipping, or of a decay
    grad = WIDE.T @ (WIDE @ np.ones(9) - np.arange(1.0, 6)) + more
    system = WIDE.T @ WIDE + 0.1 * np.eye(9)
    for method in (sample_space(), sample_space(solver=TIGHT)):

        def solve(p, grad, method=method):
            quadratic = so.Quadratic(grad, so.ggn(f, p))
            return method.update(quadratic, method.init(p), jnp.asarray(0.1))

        step, _ = jax.jit(solve)(p, grad)
        np.testing.assert_allclose(step.direction, -np.linalg.solve(system, grad), 1e-8)


@pytest.mark.parametrize(
    "inner",
    [cg(warm_start=0.5), cg(preconditioner=nystrom(3, refresh_every=2)), so.solvers.steihaug()],
)
def test_an_inner_solver_that_does_not_fit_is_refused(inner):
    with pytest.raises(ValueError, match="sample_space needs a solver"):
        sample_space(solver=inner)
