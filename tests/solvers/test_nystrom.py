"""The randomised Nyström preconditioner: its formula, what it saves, and what it costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratics import Dense, random_matrix, run
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.operators import _nystrom as ny
from secondorder.solvers import Stop, cg, nystrom, relative_residual
from tests import oracles

FINE = relative_residual(1e-10)
GRAD = np.sin(1.0 + np.arange(40))


@functools.partial(jax.jit, static_argnums=1)
def _sketched(matrix, rank, seed):
    like, key = jnp.zeros(len(matrix), matrix.dtype), jax.random.key(seed)
    found = ny.sketched(lambda v: matrix @ v, like, key, rank)
    drawn = ny.sketched(lambda v: v, like, key, rank)
    written = lambda s: s.vectors.T * s.values @ s.vectors
    return found, written(found), written(drawn)


def sketch_of(matrix, rank, seed=0):
    """The sketch, the matrix it stands for, and the projector on what was drawn."""
    return jax.tree.map(np.asarray, _sketched(jnp.asarray(matrix), rank, seed))


def inverse_of(sketch, size, damping):
    """The preconditioner as a matrix."""
    return np.asarray(_inverse(sketch, np.eye(size, dtype=sketch.values.dtype), damping))


@jax.jit
def _inverse(sketch, eye, damping):
    return jax.vmap(lambda e: ny.preconditioned(sketch, e, damping), out_axes=1)(eye)


def test_it_is_the_dense_formula_on_what_was_drawn(x64):
    matrix = random_matrix(np.geomspace(1e-3, 1e3, 12))
    sketch, found, projector = sketch_of(matrix, 5)
    assert_close(projector @ projector, projector, norm=5)
    basis = np.linalg.svd(projector)[0][:, :5]
    image = matrix @ basis
    expected = image @ np.linalg.solve(basis.T @ image, image.T)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    gram = np.asarray(sketch.vectors @ sketch.vectors.T)
    assert_close(gram, np.eye(5), norm=5)
    assert np.all(np.diff(sketch.values) <= 0) and np.all(sketch.values >= 0)
    assert np.min(np.linalg.eigvalsh(matrix - found)) > -1e-8  # it lies below


def test_it_is_exact_where_the_rank_is_reached(x64):
    matrix = random_matrix([5.0, 3.0, 1.0, 0.1, *np.zeros(8)])
    for rank in (4, 7, 50):
        sketch, found, _ = sketch_of(matrix, rank)
        assert sketch.values.size == min(rank, 12)
        np.testing.assert_allclose(found, matrix, atol=rounding(50, norm=5))  # 5 to 0.1


@pytest.mark.parametrize("damping", [1e-2, 1.0])
def test_the_preconditioner_is_its_formula(x64, damping):
    sketch, _, _ = sketch_of(random_matrix(np.geomspace(1e-3, 1e3, 12)), 5)
    u, values = np.asarray(sketch.vectors).T, np.asarray(sketch.values)
    inside = (values[-1] + damping) * u / (values + damping) @ u.T
    expected = inside + np.eye(12) - u @ u.T
    assert_close(inverse_of(sketch, 12, damping), expected, norm=5)


@pytest.mark.parametrize("rank", [2, 4, 6])
def test_without_damping_it_is_still_positive(x64, rank):
    sketch, _, _ = sketch_of(random_matrix([5.0, 3.0, 1.0, 0.1, *np.zeros(4)]), rank)
    values = np.linalg.eigvalsh(inverse_of(sketch, 8, 0.0))
    assert np.all(np.isfinite(values)) and values[0] > 0


@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_a_matrix_of_nothing_or_of_nan_leaves_the_residual_as_it_is(fill):
    sketch, _, _ = sketch_of(np.full((6, 6), fill, np.float32), 3)
    np.testing.assert_allclose(inverse_of(sketch, 6, 0.5), np.eye(6), atol=1e-6)


def test_directions_that_bend_down_are_left_out(x64):
    matrix = random_matrix([9.0, 4.0, -1.0, -5.0, 1.0, 0.5])
    sketch, _, _ = sketch_of(matrix, 6)
    values = np.linalg.eigvalsh(inverse_of(sketch, 6, 1e-3))
    assert np.all(values > 0) and np.all(np.isfinite(values))


def effective_dimension(eigenvalues, damping):
    return np.sum(eigenvalues / (eigenvalues + damping))


def test_the_condition_number_is_small_at_three_times_the_effective_dimension(x64):
    x = np.linspace(0, 1, 80)
    kernel, damping = np.exp(-5 * (x[:, None] - x) ** 2), 1e-5
    eigenvalues = np.maximum(np.linalg.eigvalsh(kernel), 0)
    rank = 2 * int(np.ceil(1.5 * effective_dimension(eigenvalues, damping))) + 1
    assert rank < 60
    system, found = kernel + damping * np.eye(80), []
    for seed in range(5):
        sketch, _, _ = sketch_of(kernel, rank, seed)
        root = np.linalg.cholesky(inverse_of(sketch, 80, damping))
        values = np.linalg.eigvalsh(root.T @ system @ root)
        found.append(values[-1] / values[0])
    assert np.linalg.cond(system) > 1e6 and np.mean(found) < 28


@pytest.mark.quick(1)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cg_takes_a_fraction_of_its_iterations(x64, dtype):
    matrix = random_matrix(np.concatenate([np.geomspace(1e3, 1, 20), np.full(20, 1e-2)]))
    problem = Dense(matrix.astype(dtype), GRAD.astype(dtype))
    stop, damping = relative_residual(1e-4), 1e-1
    plain, _ = run(cg(1000, stop), problem, damping)
    better, _ = run(cg(1000, stop, nystrom(25)), problem, damping)
    assert better.report.stopped == plain.report.stopped == Stop.SOLVED
    assert better.report.iterations < 0.3 * plain.report.iterations
    assert better.report.products == better.report.iterations + 1 + 25  # one for the residual
    expected = -np.linalg.solve(matrix + damping * np.eye(40), GRAD)
    assert oracles.relative_error(better.direction, expected) < 2e-2
    assert better.direction.dtype == dtype


def test_a_rank_that_is_reached_leaves_one_iteration(x64):
    problem = Dense(random_matrix([1e6, 1e3, 1.0, *np.zeros(37)]), GRAD)
    step, _ = run(cg(100, FINE, nystrom(5)), problem, 1e-4)
    assert step.report.iterations <= 2 and step.report.residual < 1e-6


def test_a_tree_is_sketched_across_its_leaves(x64):
    matrix = random_matrix([3.0, 2.0, 1.0, *np.zeros(5)])
    like = {"a": jnp.zeros((2, 3)), "b": (jnp.zeros(2), None)}
    join = lambda v: jnp.concatenate([v["a"].ravel(), v["b"][0]])
    split = lambda x: {"a": x[:6].reshape(2, 3), "b": (x[6:], None)}
    found = ny.sketched(lambda v: split(matrix @ join(v)), like, jax.random.key(0), 3)
    u = np.asarray(jax.vmap(join)(found.vectors))
    drawn = ny.sketched(lambda v: v, like, jax.random.key(0), 3).vectors
    core = np.asarray(jax.vmap(join)(drawn))
    kappa = np.linalg.cond(core @ matrix @ core.T)  # whose root is taken
    assert_close(u.T * found.values @ u, matrix, kappa)
    v = split(jnp.arange(8.0))
    expected = np.linalg.solve(matrix + 0.5 * np.eye(8), np.arange(8.0)) * 0.5
    expected *= (found.values[-1] + 0.5) / 0.5
    inside = u.T @ (u @ expected)  # within U alone: outside it takes the least value found
    inside += (np.eye(8) - u.T @ u) @ np.arange(8.0)
    assert_close(join(ny.preconditioned(found, v, 0.5)), inside, 7 * kappa)  # 3.5 to 0.5


def test_a_sketch_serves_as_many_solves_as_asked(x64):
    matrix, solver = (
        random_matrix(np.geomspace(1e-2, 1e2, 40)),
        cg(5, FINE, nystrom(8, refresh_every=3)),
    )
    state, paid, sketches = None, [], []
    for k in range(6):
        step, state = run(solver, Dense(matrix * (k + 1), GRAD), 0.1, state)
        paid.append(int(step.report.products - step.report.iterations - 1))
        sketches.append(np.asarray(state.preconditioner.sketch.values))
    assert paid == [8, 0, 0, 8, 0, 0]
    for a, b in ((0, 1), (1, 2), (3, 4)):
        np.testing.assert_array_equal(sketches[a], sketches[b])
    np.testing.assert_allclose(sketches[3][0], 4 * sketches[0][0], rtol=0.2)
    assert abs(sketches[3][0] - 4 * sketches[0][0]) > 1e-3  # drawn anew


def test_a_second_trial_at_a_point_pays_no_sketch(x64):
    matrix, solver = (
        jnp.asarray(random_matrix(np.geomspace(1e-2, 1e2, 40))),
        cg(5, FINE, nystrom(8)),
    )
    op, grad = so.operators.Function(lambda v: matrix @ v, jnp.asarray(GRAD)), jnp.asarray(GRAD)

    @jax.jit
    def trials():
        model = so.Quadratic(grad, op)
        factors, memory, cost = solver.prepare(model, solver.init(grad))
        second, _ = solver.solve(model, factors, memory, jnp.asarray(10.0))
        return cost.products, second, solver.update(model, solver.init(grad), jnp.asarray(10.0))[0]

    sketch, second, fresh = trials()
    paid = [step.report.products - step.report.iterations - 1 for step in (second, fresh)]
    assert (sketch, *paid) == (8, 0, 8)
    assert_close(second.direction, fresh.direction, 11)  # damped, 110 to 10


def test_with_a_warm_start_it_starts_at_the_solution(x64):
    problem = Dense(random_matrix(np.geomspace(1, 1e4, 40)), GRAD)
    solver = cg(100, relative_residual(1e-8), nystrom(10), warm_start=1.0)
    cold, state = run(solver, problem, 0.1)
    warm, _ = run(solver, problem, 0.1, state)
    assert cold.report.iterations > 2 >= warm.report.iterations


@pytest.mark.quick(1)
def test_it_serves_minimize_with_rejections(x64):
    f = so.sum_of_squares(lambda p: jnp.arctan(p) * jnp.array([1.0, 3.0]))
    solver = cg(20, FINE, nystrom(2, refresh_every=2))
    tx = so.scale_by_curvature(so.exact(so.ggn), solver, so.trust.damping(1e-8))
    found = so.minimize(f, jnp.array([4.0, 3.0]), tx, max_steps=200)
    assert found.success and found.state.rejections > 0
    np.testing.assert_allclose(found.params, 0, atol=1e-6)


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 3, "refresh_every": 0}])
def test_numbers_below_one_are_refused(options):
    with pytest.raises(ValueError, match="positive integer"):
        nystrom(**options)
