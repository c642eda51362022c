"""What a solve may claim, what it costs, and what it says when it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.optimize._convergence import PATIENCE


def rosenbrock(p):
    return jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])


def decay(t, y):
    return lambda p: p["a"] * jnp.exp(-p["b"] * t) - y


def decay_problem():
    t = jnp.linspace(0.0, 2.0, 20)
    y = 3.0 * jnp.exp(-1.5 * t) + 0.05 * jnp.cos(40 * t)
    return decay(t, y), {"a": jnp.array(1.0), "b": jnp.array(0.5)}, (np.asarray(t), np.asarray(y))


OPTIMIZERS = {
    "gradient_descent": so.gradient_descent(),
    "newton": so.newton(),
    "gauss_newton": so.gauss_newton(),
    "levenberg_marquardt": so.levenberg_marquardt(),
    "newton_cg": so.newton_cg(),
    "hessian_free": so.hessian_free(),
    "optax.lbfgs": optax.lbfgs(),
    "optax.adam": optax.adam(0.05),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reaches_the_least_squares_solution_that_scipy_finds(name, x64):
    residual, start, (t, y) = decay_problem()
    solution = so.minimize(
        so.sum_of_squares(residual), start, OPTIMIZERS[name], tol=1e-7, max_steps=5000
    )
    peer = scipy.optimize.least_squares(
        lambda p: p[0] * np.exp(-p[1] * t) - y, [1.0, 0.5], xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    assert int(solution.status) == so.Status.CONVERGED and bool(solution.success)
    found = [float(solution.params["a"]), float(solution.params["b"])]
    np.testing.assert_allclose(found, peer.x, rtol=1e-5)
    assert_close(float(solution.value), peer.cost, 1e4)
    gradient = jax.grad(so.sum_of_squares(residual))(solution.params)
    size, noise = float(so.tree.norm(gradient)), rounding(norm=len(t))
    np.testing.assert_allclose(float(solution.grad_norm), size, rtol=1e-6, atol=noise)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["gauss_newton", "levenberg_marquardt"])
def test_rosenbrock_as_least_squares_ends_within_twenty_steps(name, x64):
    solution = so.least_squares(rosenbrock, jnp.array([-1.2, 1.0]), OPTIMIZERS[name])
    assert int(solution.status) == so.Status.CONVERGED
    assert int(solution.steps) <= 20
    np.testing.assert_allclose(np.asarray(solution.params), 1.0, rtol=1e-6)


@pytest.mark.slow
def test_jit_and_vmap_give_the_single_solves_one_by_one(x64):
    starts = jnp.array([[-1.2, 1.0], [2.0, 2.0], [0.0, 0.0]])

    def solve(start):
        return so.least_squares(rosenbrock, start)

    batched = jax.jit(jax.vmap(solve))(starts)
    for i, start in enumerate(starts):
        alone = solve(start)
        assert abs(int(alone.steps) - int(batched.steps[i])) <= 1  # other programs round otherwise
        # The Jacobian there is of condition 50.
        np.testing.assert_allclose(batched.params[i], alone.params, rtol=rounding(50**2))
        assert int(batched.status[i]) == int(alone.status)


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_jitted_solve_traces_the_objective_at_most_three_times(name):
    traces = []

    def residual(p):
        traces.append(1)
        return rosenbrock(p)

    solve = lambda p: so.minimize(so.sum_of_squares(residual), p, OPTIMIZERS[name])
    jax.eval_shape(solve, jnp.array([-1.2, 1.0]))
    assert 1 <= len(traces) <= 3


def test_evaluations_are_counted_as_they_happen():
    """Counted by the host through a callback, against the solution's own account."""
    calls = []

    @jax.custom_jvp
    def counted(p):
        jax.debug.callback(lambda: calls.append("value"))
        return jnp.sum((p - 1.0) ** 4)

    @counted.defjvp
    def _(primals, tangents):
        (p,), (v,) = primals, tangents
        jax.debug.callback(lambda: calls.append("slope"))
        return jnp.sum((p - 1.0) ** 4), jnp.sum(4 * (p - 1.0) ** 3 * v)

    solution = so.minimize(counted, jnp.zeros(2), so.gradient_descent(), max_steps=7)
    jax.effects_barrier()
    assert int(solution.evaluations.gradients) == calls.count("slope")
    assert int(solution.steps) == 7


def test_one_gradient_per_step_and_one_value_per_trial():
    solution = so.minimize(so.sum_of_squares(rosenbrock), jnp.array([-1.2, 1.0]), so.newton_cg())
    rejected = int(so.diagnostics(solution.state)["rejections"])
    # A rejected step stays where it is, and so does its gradient.
    assert rejected > 0
    assert int(solution.evaluations.gradients) == int(solution.steps) - rejected + 1
    # The last trial shows that nothing is left to gain, and is not taken.
    assert int(solution.evaluations.values) == int(solution.steps) + 1


def test_a_line_search_hands_its_gradient_to_the_next_step():
    solution = so.minimize(lambda p: jnp.sum(jnp.exp(p) - p), jnp.ones(3), so.newton())
    # Every trial at α = 1 succeeds: one evaluation a step, the first, and a last that is not taken.
    assert int(solution.evaluations.gradients) == int(solution.steps) + 2


def test_a_transformation_after_the_line_search_makes_its_gradient_stale_and_unused(x64):
    """The halved step lands elsewhere: its gradient must be evaluated, not remembered."""
    halved = optax.chain(so.newton(), optax.scale(0.5))
    solution = so.minimize(lambda p: jnp.sum(jnp.exp(p) - p), jnp.ones(3), halved)
    assert int(solution.status) == so.Status.CONVERGED
    np.testing.assert_allclose(np.asarray(solution.params), 0, atol=1e-7)


def test_a_start_at_the_solution_returns_at_once():
    solution = so.least_squares(rosenbrock, jnp.ones(2))
    assert int(solution.status) == so.Status.CONVERGED
    assert int(solution.steps) == 0
    constant = so.minimize(lambda p: 0.0 * jnp.sum(p) + 2.0, jnp.ones(2), so.newton())
    assert int(constant.status) == so.Status.CONVERGED and int(constant.steps) == 0


def test_max_steps_is_a_status_of_its_own_and_no_success():
    solution = so.minimize(
        so.sum_of_squares(rosenbrock), jnp.array([-1.2, 1.0]), optax.adam(1e-3), max_steps=3
    )
    assert int(solution.steps) == 3
    assert int(solution.status) == so.Status.MAX_STEPS and not bool(solution.success)
    assert "step limit" in solution.message


@pytest.mark.parametrize(("size", "most"), [(20, 1000), (150, 1500)])
def test_the_limit_of_steps_follows_the_number_of_parameters(size, most):
    slow = optax.sgd(1e-4)
    solution = so.minimize(lambda p: jnp.sum(p**2), jnp.ones(size), slow)
    assert int(solution.status) == so.Status.MAX_STEPS and int(solution.steps) == most


@pytest.mark.slow
def test_the_extended_rosenbrock_function_in_a_thousand_dimensions_is_solved(x64):
    f = lambda p: jnp.sum(100 * (p[1::2] - p[::2] ** 2) ** 2 + (1 - p[::2]) ** 2)
    chained = lambda p: jnp.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)
    for value in (f, chained):
        solution = so.minimize(value, jnp.tile(jnp.array([-1.2, 1.0]), 500))
        assert bool(solution.success)
        np.testing.assert_allclose(solution.params, 1.0, rtol=1e-5)


def test_a_start_with_nan_is_reported_and_left_as_it_was():
    start = {"a": jnp.array([jnp.nan, 1.0])}
    solution = so.minimize(lambda p: jnp.sum(p["a"] ** 2), start)
    assert int(solution.status) == so.Status.NONFINITE and int(solution.steps) == 0
    np.testing.assert_array_equal(solution.params["a"], start["a"])


def test_a_diverging_optimizer_returns_the_last_finite_point():
    solution = so.minimize(lambda p: jnp.sum(p**4), jnp.full(2, 3.0), optax.sgd(1e3), max_steps=50)
    assert int(solution.status) == so.Status.NONFINITE and not bool(solution.success)
    assert bool(jnp.all(jnp.isfinite(solution.params))) and bool(jnp.isfinite(solution.value))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["newton", "newton_cg", "levenberg_marquardt", "gauss_newton"])
def test_a_trial_outside_the_domain_costs_a_shorter_step_and_nothing_else(name, x64):
    """A full step from here reaches the logarithm of a negative number."""

    def residual(p):
        return jnp.stack([jnp.log(p[0]), 0.1 * (p[0] - 1)])

    solution = so.minimize(so.sum_of_squares(residual), jnp.array([20.0]), OPTIMIZERS[name])
    assert int(solution.status) == so.Status.CONVERGED
    np.testing.assert_allclose(float(solution.params[0]), 1.0, rtol=1e-6)


def test_a_function_without_minimum_is_never_called_converged():
    for optimizer in (so.newton(), so.newton_cg(), so.gradient_descent()):
        solution = so.minimize(lambda p: -jnp.sum(p**2), jnp.ones(2), optimizer, max_steps=50)
        assert not bool(solution.success)
        assert bool(jnp.all(jnp.isfinite(solution.params)))


def test_frozen_updates_end_as_stagnated():
    solution = so.minimize(lambda p: jnp.sum(p**2), jnp.ones(2), optax.sgd(0.0))
    assert int(solution.status) == so.Status.STAGNATED and not bool(solution.success)
    assert int(solution.steps) == PATIENCE


def test_a_start_from_which_every_trial_is_nan_ends_at_the_trust_limit():
    @jax.custom_jvp
    def island(p):
        return jnp.where(jnp.all(p == 1.0), 2.0, jnp.nan)

    island.defjvp(lambda ps, ts: (island(*ps), 2 * jnp.sum(ps[0] * ts[0])))
    cautious = so.scale_by_curvature(
        so.curvature.identity(), so.solvers.apply_inverse(), so.trust.damping()
    )
    solution = so.minimize(island, jnp.ones(2), cautious)
    assert int(solution.status) == so.Status.TRUST_LIMIT and not bool(solution.success)
    np.testing.assert_array_equal(solution.params, jnp.ones(2))


def test_the_limit_of_precision_is_no_success():
    """A tolerance below rounding: the steps die out, and nobody claims the first-order test."""
    curve = jnp.array([1.0, 3.0, 7.0])
    solution = so.minimize(
        lambda p: jnp.sum(jnp.cosh(curve * (p - 0.3))), jnp.zeros(3), so.newton_cg(), tol=1e-30
    )
    assert int(solution.status) in (so.Status.LIMIT_OF_PRECISION, so.Status.CONVERGED)
    assert bool(solution.success) == (float(solution.grad_norm) == 0.0)


@pytest.mark.quick(1)
@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6])
def test_rescaling_the_objective_never_makes_an_early_success(factor, x64):
    def value(p):
        return factor * jnp.sum(so.sum_of_squares(rosenbrock)(p))

    solution = so.minimize(value, jnp.array([-1.2, 1.0]), so.newton())
    assert int(solution.status) == so.Status.CONVERGED
    np.testing.assert_allclose(np.asarray(solution.params), 1.0, atol=1e-5)


@jax.jit
def solved_in(data, factor, units, start):
    """The decay in other units: one program for all of them."""
    residual = decay(*data)
    return so.least_squares(lambda p: factor * residual({k: p[k] / units[k] for k in p}), start)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("residual_factor", "spread"), [(1e-6, 0), (1e6, 0), (1.0, 6), (1e-6, 6)])
def test_least_squares_is_the_same_after_rescaling_parameters_and_residuals(
    residual_factor, spread, x64
):
    _, start, data = decay_problem()
    units = {"a": 10.0**spread, "b": 10.0**-spread}
    plain = solved_in(data, 1.0, {"a": 1.0, "b": 1.0}, start)
    other = solved_in(data, residual_factor, units, {k: start[k] * units[k] for k in start})
    assert int(plain.status) == int(other.status) == so.Status.CONVERGED
    assert abs(int(plain.steps) - int(other.steps)) <= 1  # the units are no powers of two
    for k in start:
        np.testing.assert_allclose(
            float(other.params[k]) / units[k], float(plain.params[k]), rtol=1e-7
        )


@pytest.mark.slow
def test_a_rank_deficient_least_squares_problem_ends_finite_and_converged(x64):
    # The region answers a singular Jacobian with a little damping; singular values need none.
    for optimizer, rtol in ((so.levenberg_marquardt(), 1e-3), (so.gauss_newton(), 1e-6)):
        solution = so.least_squares(
            lambda p: jnp.stack([p[0] + p[1] - 1, 2 * (p[0] + p[1]) - 1, p[0] + p[1]]),
            jnp.zeros(2),
            optimizer,
        )
        assert int(solution.status) == so.Status.CONVERGED
        # The shortest of all solutions: the sum is 3/6, shared equally.
        np.testing.assert_allclose(np.asarray(solution.params), 0.25, rtol=rtol)


def test_more_parameters_than_residuals_are_solved_to_zero_residual(x64):
    solution = so.least_squares(lambda p: jnp.stack([p[0] * p[1] - 2, p[2] - p[0]]), jnp.ones(3))
    assert int(solution.status) == so.Status.CONVERGED
    np.testing.assert_allclose(float(solution.value), 0, atol=rounding())


@pytest.mark.slow
def test_a_robust_loss_ignores_an_outlier_that_plain_least_squares_follows(x64):
    x = jnp.linspace(0.0, 1.0, 12)
    y = (2 * x + 1).at[5].set(40.0)

    def residual(p):
        return p[0] * x + p[1] - y

    plain = so.least_squares(residual, jnp.zeros(2))
    for loss, peer in ((so.huber(0.1), "huber"), (so.soft_l1(0.1), "soft_l1")):
        robust = so.least_squares(residual, jnp.zeros(2), loss=loss)
        expected = scipy.optimize.least_squares(
            lambda p: np.asarray(p[0] * x + p[1] - y), [0.0, 0.0], loss=peer, f_scale=0.1,
            xtol=1e-14, ftol=1e-14, gtol=1e-14,
        )  # fmt: skip
        assert int(robust.status) == so.Status.CONVERGED
        np.testing.assert_allclose(np.asarray(robust.params), expected.x, rtol=1e-4)
        assert abs(float(robust.params[0]) - 2) < abs(float(plain.params[0]) - 2)


@pytest.mark.slow
def test_a_hundred_thousand_parameters_fit_in_the_memory_of_some_vectors():
    """The extended Rosenbrock function, matrix-free: temporaries are counted in vectors of n."""
    n = 100_000

    def value(p):
        even, odd = p[::2], p[1::2]
        return jnp.mean(100 * (odd - even**2) ** 2 + (1 - even) ** 2)

    solve = jax.jit(lambda p: so.minimize(value, p, so.newton_cg(), tol=1e-5, max_steps=60))
    start = jnp.tile(jnp.array([-1.2, 1.0]), n // 2)
    program = solve.lower(start).compile()
    assert program.memory_analysis().temp_size_in_bytes < 40 * 4 * n
    assert bool(program(start).success)


def test_bad_input_is_answered_in_a_sentence():
    def f(p):
        return jnp.sum(p**2)

    with pytest.raises(TypeError, match="dtype int32.*floating-point"):
        so.minimize(f, jnp.arange(3))
    with pytest.raises(TypeError, match="complex"):
        so.minimize(f, jnp.ones(2) * 1j)
    with pytest.raises(TypeError, match="value_fn to be a function"):
        so.minimize(3.0, jnp.ones(2))
    with pytest.raises(ValueError, match="returns one number.*least_squares"):
        so.minimize(rosenbrock, jnp.ones(2))
    with pytest.raises(ValueError, match="returns a vector"):
        so.least_squares(f, jnp.ones(2))
    with pytest.raises(ValueError, match="tol=-1"):
        so.minimize(f, jnp.ones(2), tol=-1)
    with pytest.raises(ValueError, match="max_steps=0"):
        so.minimize(f, jnp.ones(2), max_steps=0)
    with pytest.raises(TypeError, match=r"compose\(loss, model\).*sum_of_squares\(residual\)"):
        so.minimize(f, jnp.ones(2), so.gauss_newton())


@pytest.mark.quick(2)
@pytest.mark.parametrize("nothing", [{}, jnp.zeros(0)], ids=["tree", "array"])
@pytest.mark.parametrize("name", ["trust_region_newton", "newton", "levenberg_marquardt"])
def test_without_parameters_a_solve_is_converged_where_it_stands(name, nothing):
    # The last one measures optimality itself, and must not be waited for.
    f = so.sum_of_squares(lambda p: jnp.ones(2))
    solution = so.minimize(f, nothing, getattr(so, name)())
    assert int(solution.status) == so.Status.CONVERGED and int(solution.steps) == 0
    assert jax.tree.map(jnp.shape, solution.params) == jax.tree.map(jnp.shape, nothing)
    assert float(solution.value) == 1.0


def test_python_numbers_are_parameters_too():
    solution = so.minimize(lambda p: (p - 2.0) ** 2, 0.0)
    np.testing.assert_allclose(float(solution.params), 2.0, rtol=1e-5)


@pytest.mark.quick(1)
@pytest.mark.parametrize("loss", ["sigmoid", "softmax", "poisson"])
@pytest.mark.parametrize("name", ["levenberg_marquardt", "gauss_newton", "dogleg"])
def test_a_likelihood_that_is_surely_wrong_is_not_called_optimal(loss, name, x64):
    """There the residual of the local least-squares problem is enormous, and every cosine tiny."""
    x, y = jnp.array([1.0, 0.5, -1.0]), jnp.array([1, 0, 0])  # no p separates them
    if loss == "sigmoid":
        f = so.compose(so.sigmoid_cross_entropy(y.astype(float)), lambda p: p * x)
    elif loss == "softmax":
        f = so.compose(
            so.softmax_cross_entropy(y), lambda p: jnp.stack([jnp.zeros(3), p * x], axis=-1)
        )
    else:
        f = so.compose(so.poisson(y.astype(float)), lambda p: p * x)
    start = jnp.array(-60.0)
    solve = jax.jit(lambda steps: so.minimize(f, start, getattr(so, name)(), max_steps=steps))
    solution = solve(60)
    if bool(solution.success):
        assert float(solution.grad_norm) <= 1e-6
    assert not bool(solve(1).success)


def test_every_status_is_a_sentence():
    for status in so.Status:
        assert status.sentence.endswith(".") and status.sentence[0].isupper()


# ------------------------------------------------------------------ bounds, history, going on


@pytest.mark.quick(1)
@pytest.mark.parametrize("solve", [so.minimize, so.least_squares])
def test_bounds_are_kept_at_every_step_and_give_scipys_solution(solve, x64):
    seen = []

    def watched(p):
        jax.debug.callback(lambda q: seen.append(np.asarray(q)), p)
        return rosenbrock(p)

    objective = watched if solve is so.least_squares else so.sum_of_squares(watched)
    solution = solve(objective, jnp.array([-1.2, 0.4]), bounds=(-2.0, 0.5))
    jax.effects_barrier()
    peer = scipy.optimize.least_squares(
        lambda p: np.asarray(rosenbrock(p)), [-1.2, 0.4], bounds=(-2, 0.5)
    )
    assert int(solution.status) == so.Status.CONVERGED
    np.testing.assert_allclose(solution.params, peer.x, rtol=1e-6)
    assert np.max(seen) <= 0.5 and np.min(seen) >= -2.0


def test_equal_bounds_fix_a_parameter(x64):
    lower = {"a": jnp.array(2.0), "b": jnp.array(-10.0)}
    upper = {"a": jnp.array(2.0), "b": jnp.array(10.0)}
    residual, start, _ = decay_problem()
    solution = so.least_squares(residual, start, bounds=(lower, upper))
    assert int(solution.status) == so.Status.CONVERGED
    assert float(solution.params["a"]) == 2.0 and bool(solution.projected)


def test_a_start_outside_the_bounds_is_projected_and_said():
    f = lambda p: jnp.sum((p - 3.0) ** 2)
    outside = so.minimize(f, jnp.full(2, 9.0), bounds=(0.0, 5.0))
    inside = so.minimize(f, jnp.full(2, 1.0), bounds=(0.0, 5.0))
    assert bool(outside.projected) and not bool(inside.projected)
    np.testing.assert_allclose(outside.params, 3.0, rtol=1e-5)


def test_bad_bounds_are_answered_in_a_sentence():
    f = lambda p: jnp.sum(p**2)
    with pytest.raises(ValueError, match="bounds cross at params"):
        so.minimize(f, jnp.ones(2), bounds=(1.0, 0.0))
    with pytest.raises(ValueError, match="the lower bound has shape"):
        so.minimize(f, jnp.ones(2), bounds=(jnp.zeros(3), 1.0))
    with pytest.raises(ValueError, match="pair"):
        so.minimize(f, jnp.ones(2), bounds=3.0)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["levenberg_marquardt", "newton_cg"])
def test_going_on_from_a_solution_is_the_uninterrupted_run(name, x64):
    f = so.sum_of_squares(rosenbrock)
    whole = so.minimize(f, jnp.array([-1.2, 1.0]), OPTIMIZERS[name])
    part = so.minimize(f, jnp.array([-1.2, 1.0]), OPTIMIZERS[name], max_steps=4)
    rest = so.minimize(f, part, OPTIMIZERS[name])
    assert int(part.steps) == 4 and abs(int(rest.steps) - int(whole.steps)) <= 1
    # Two programs, which a compiler may round apart; a lost state would cost many steps.
    kappa = np.linalg.cond(jax.hessian(f)(whole.params))
    assert_close(rest.params, whole.params, kappa)


@pytest.mark.quick(0)
@pytest.mark.parametrize("name", ["levenberg_marquardt", "newton_cg"])
def test_going_on_one_step_is_the_next_step(name, x64):
    f = so.sum_of_squares(rosenbrock)
    early = so.minimize(f, jnp.array([-1.2, 1.0]), OPTIMIZERS[name], max_steps=4)
    next_ = so.minimize(f, jnp.array([-1.2, 1.0]), OPTIMIZERS[name], max_steps=5)
    after = so.minimize(f, early, OPTIMIZERS[name], max_steps=5)
    assert jax.tree.structure(after) == jax.tree.structure(next_)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(next_), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_run_of_optax_goes_on_from_a_solution(x64):
    # Not bit for bit under the flags of these tests, which leave the code as it is generated.
    f, method = so.sum_of_squares(rosenbrock), OPTIMIZERS["optax.lbfgs"]
    whole = so.minimize(f, jnp.array([-1.2, 1.0]), method)
    rest = so.minimize(f, so.minimize(f, jnp.array([-1.2, 1.0]), method, max_steps=4), method)
    assert int(rest.steps) == int(whole.steps)
    assert_close(rest.params, whole.params, 2500)


@pytest.mark.slow
def test_history_holds_what_happened_as_far_as_it_has_room(x64):
    f, start = so.sum_of_squares(rosenbrock), jnp.array([-1.2, 1.0])
    long = so.minimize(f, start, so.levenberg_marquardt(), history=40)
    short = so.minimize(f, start, so.levenberg_marquardt(), history=3)
    steps = int(long.steps)
    assert np.all(np.isfinite(long.history.value[:steps]))
    assert np.all(np.isposinf(long.history.value[steps:]))
    assert_close(short.history.value, long.history.value[:3], 2500)
    np.testing.assert_allclose(float(long.history.value[0]), float(f(start)), rtol=rounding(10))
    assert int(np.sum(~long.history.accepted[:steps])) == int(
        so.diagnostics(long.state)["rejections"]
    )


UNHURRIED = {  # enough for a dozen steps and a rejection among them
    "levenberg_marquardt": lambda: so.levenberg_marquardt(
        trust=so.trust.damping(1e-3), acceleration=False
    ),
    "trust_region_newton": so.trust_region_newton,
    "cubic_newton": so.cubic_newton,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNHURRIED)
def test_factors_kept_across_a_rejection_change_no_step(name, x64):
    """The solve in minimize, against a plain Optax loop that factorises at every update."""
    opt, f = UNHURRIED[name](), so.sum_of_squares(rosenbrock)
    params, kept = (
        jnp.array([-1.2, 1.0]),
        so.minimize(f, jnp.array([-1.2, 1.0]), opt, max_steps=12, history=12),
    )

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(f)(params)
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=f)
        return optax.apply_updates(params, updates), state

    state, accepted = opt.init(params), []
    for _ in range(12):
        params, state = step(params, state)
        accepted.append(bool(so.diagnostics(state)["accepted"]))
    assert_close(kept.params, params, 2500)  # the Hessian of Rosenbrock's function
    assert list(np.asarray(kept.history.accepted)) == accepted and not all(accepted)
    if name == "levenberg_marquardt":
        assert int(kept.evaluations.jacobians) < 12


@pytest.mark.slow
def test_the_default_is_chosen_by_kind_and_size_and_named():
    f = lambda p: jnp.sum((p - 1.0) ** 2)
    assert so.minimize(f, jnp.zeros(3)).method == "trust_region_newton"
    assert so.minimize(f, jnp.zeros(300)).method == "newton_cg"
    assert so.least_squares(lambda p: p - 1.0, jnp.zeros(3)).method == "levenberg_marquardt"
    assert so.least_squares(lambda p: p - 1.0, jnp.zeros(1001)).method == "hessian_free"
    assert so.minimize(f, jnp.zeros(3), optax.adam(0.1)).method == "given"


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "name", ["trust_region_newton", "cubic_newton", "bfgs", "lbfgs", "sr1", "dogleg"]
)
def test_every_minimiser_ends_rosenbrock(name, x64):
    solution = so.minimize(
        so.sum_of_squares(rosenbrock), jnp.array([-1.2, 1.0]), getattr(so, name)(), max_steps=200
    )
    assert int(solution.status) == so.Status.CONVERGED
    np.testing.assert_allclose(solution.params, 1.0, rtol=1e-6)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["trust_region_newton", "cubic_newton"])
def test_a_saddle_that_the_gradient_cannot_see_is_left(name, x64):
    f = lambda p: p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[1] ** 2 / 2
    solution = so.minimize(f, jnp.array([0.0, 1.0]), getattr(so, name)())
    assert int(solution.status) == so.Status.CONVERGED
    np.testing.assert_allclose(float(solution.value), -0.25, rtol=1e-8)


@pytest.mark.slow
def test_the_message_of_a_batch_counts_its_statuses():
    solve = lambda start: so.minimize(lambda p: jnp.sum(jnp.cosh(p)), start, max_steps=4)
    starts = jnp.array([[0.1], [9.0], [0.2]])
    batch = jax.jit(jax.vmap(solve))(starts)
    assert batch.message.startswith("2 times: The scaled first-order test holds")
    assert "1 times: The step limit" in batch.message
    assert jax.tree.map(lambda x: x[0], batch).message.startswith("The scaled first-order")
