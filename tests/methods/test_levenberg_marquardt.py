"""Levenberg-Marquardt: Moré's scaling makes every unit irrelevant, and λ moves by the gain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding

import secondorder as so

X = np.linspace(0.0, 4.0, 12)
TARGET = 2 * np.exp(-0.8 * X) + 0.3 + 0.02 * np.sin(9 * X)
START = np.array([1.0, 0.2, 0.0])


def decay(p):
    x, target = jnp.asarray(X, p.dtype), jnp.asarray(TARGET, p.dtype)
    return p[0] * jnp.exp(-p[1] * x) + p[2] - target


def rosenbrock(p):
    return jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])


@functools.cache
def compiled_step(tx, residual):
    """One update of ``weight * residual(p / units)``: one program for all units."""

    @jax.jit
    def step(p, state, units, weight):
        f = so.sum_of_squares(lambda p: weight * residual(p / units))
        value, grad = jax.value_and_grad(f)(p)
        updates, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=f)
        return p + updates, state, so.diagnostics(state)

    return step


def run(tx, residual, p, count, units=1.0, weight=1.0):
    """Points and diagnostics of ``count`` updates, from ``units * p``."""
    p = jnp.asarray(p)
    units = jnp.broadcast_to(jnp.asarray(units, p.dtype), p.shape)
    p, weight = p * units, jnp.asarray(weight, p.dtype)
    step, state, points, reports = compiled_step(tx, residual), tx.init(p), [p], []
    for _ in range(count):
        p, state, report = step(p, state, units, weight)
        points.append(p)
        reports.append({key: x.item() for key, x in report.items()})
    return np.stack(points), reports


METHODS = {
    "region": so.levenberg_marquardt(),
    "damping": so.levenberg_marquardt(trust=so.trust.damping(1e-3)),
    "region, straight": so.levenberg_marquardt(acceleration=False),
    "damping, straight": so.levenberg_marquardt(trust=so.trust.damping(1e-3), acceleration=False),
}
each = pytest.mark.parametrize("method", METHODS)


def test_the_first_step_solves_the_damped_problem(x64):
    points, _ = run(
        so.levenberg_marquardt(trust=so.trust.damping(0.5), acceleration=False), decay, START, 1
    )
    jacobian, residual = jax.jacobian(decay)(START), decay(START)
    scaling = np.diag(np.linalg.norm(jacobian, axis=0))
    stacked = np.concatenate([jacobian, np.sqrt(0.5) * scaling])
    target = np.concatenate([-residual, np.zeros(3)])
    expected = np.linalg.lstsq(stacked, target)[0]
    assert_close(points[1] - START, expected, np.linalg.cond(stacked) ** 2)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "units",
    [[1e-6, 1.0, 1e6], [1e6, 1e-6, 1.0], [1e6, 1e6, 1e6], [1e-6, 1e-6, 1e-6]],
    ids=str,
)
@each
def test_rescaling_the_parameters_changes_nothing(x64, method, units):
    units = np.array(units)
    points, reports = run(METHODS[method], decay, START, 8)
    rescaled, others = run(METHODS[method], decay, START, 8, units=units)
    np.testing.assert_allclose(rescaled / units, points, rtol=1e-6)
    for a, b in zip(reports, others, strict=True):
        np.testing.assert_allclose(a["scale"], b["scale"], rtol=1e-5)
        assert a["accepted"] == b["accepted"]


@pytest.mark.quick(4)
@pytest.mark.parametrize("unit", [1e-6, 1e6])
@each
def test_rescaling_the_residuals_changes_nothing(x64, method, unit):
    points, reports = run(METHODS[method], decay, START, 8)
    rescaled, others = run(METHODS[method], decay, START, 8, weight=unit)
    np.testing.assert_allclose(rescaled, points, rtol=1e-6)
    of_scale = unit if method.startswith("region") else 1  # Δ bounds ‖D d‖, a change of residuals
    for a, b in zip(reports, others, strict=True):
        np.testing.assert_allclose(a["scale"] * of_scale, b["scale"], rtol=1e-5)


def test_rescaling_changes_nothing_of_a_search(x64):
    units, search = np.array([1e-6, 1.0, 1e6]), so.levenberg_marquardt(trust=so.trust.line_search())
    points, _ = run(search, decay, START, 4)
    rescaled, _ = run(search, decay, START, 4, units=units, weight=1e6)
    np.testing.assert_allclose(rescaled / units, points, rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_in_float32_the_units_change_the_last_digits_alone(unit):
    start = START.astype("float32")
    points, _ = run(METHODS["region"], decay, start, 8)
    units = np.array([unit, 1.0, 1 / unit], "float32")
    rescaled, _ = run(METHODS["region"], decay, start, 8, units=units)
    np.testing.assert_allclose(rescaled / units, points, rtol=2e-3, atol=1e-4)


def test_the_damping_follows_nielsens_rule(x64):
    points, reports = run(METHODS["damping, straight"], rosenbrock, [-1.2, 1.0], 25)
    damping, factor = 1e-3, 2.0
    for report in reports:
        if report["accepted"]:
            damping, factor = damping * max(1 / 3, 1 - (2 * report["gain"] - 1) ** 3), 2.0
        else:
            damping, factor = damping * factor, 2 * factor
        np.testing.assert_allclose(report["scale"], damping, rtol=rounding(25))  # of 25 factors
    assert {report["accepted"] for report in reports} == {True, False}
    np.testing.assert_allclose(points[-1], 1, atol=1e-6)


def test_no_step_goes_up_and_a_rejected_one_does_not_move(x64):
    points, reports = run(METHODS["damping, straight"], rosenbrock, [-1.2, 1.0], 25)
    values = [float(so.sum_of_squares(rosenbrock)(p)) for p in points]
    for i, report in enumerate(reports):
        assert (values[i + 1] < values[i]) == report["accepted"] or values[i] < 1e-20
        assert report["accepted"] or (points[i + 1] == points[i]).all()


def test_residuals_that_become_nan_are_stepped_around(x64):
    wall = lambda p: jnp.log(p) - 1.0  # NaN for p < 0, where a full step would end
    points, reports = run(
        so.levenberg_marquardt(trust=so.trust.damping(1e-9), acceleration=False), wall, [20.0], 30
    )
    assert not reports[0]["accepted"]
    assert_close(points[-1], np.e)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("trust", "rtol"), [(so.trust.damping(1e-3), 1e-6), (jnp.inf, 1e-3)])
def test_two_parameters_that_do_the_same_share_the_step(x64, trust, rtol):
    points, _ = run(
        so.levenberg_marquardt(trust=trust), lambda p: decay(p[:3]) + p[3], [*START, 0.0], 10
    )
    moved = points[-1] - points[0]
    np.testing.assert_allclose(moved[3], moved[2], rtol=rtol)
    assert np.isfinite(points).all()


def test_a_wide_problem_is_solved_by_a_short_step(x64):
    features = np.random.default_rng(0).normal(size=(3, 10))
    residual = lambda p: features @ p - np.ones(3)
    points, _ = run(
        so.levenberg_marquardt(trust=so.trust.damping(1e-3), acceleration=False),
        residual,
        np.zeros(10),
        12,
    )
    scaling = np.linalg.norm(features, axis=0)
    kappa = np.linalg.cond(features / scaling)
    assert_close(residual(points[-1]), 0, kappa, norm=1)
    shortest = np.linalg.pinv(features / scaling) @ np.ones(3) / scaling
    assert_close(points[-1], shortest, 12 * kappa**2)  # of twelve steps


@pytest.mark.quick(1)
@each
def test_an_exact_fit_is_reached_to_the_last_digits(x64, method):
    # Where residuals vanish the damping must vanish with them, or convergence is linear.
    exact = lambda p: p[0] * jnp.exp(-p[1] * X) + p[2] - (2 * np.exp(-0.8 * X) + 0.3)
    points, reports = run(METHODS[method], exact, START, 16)
    solution = np.array([2.0, 0.8, 0.3])
    assert_close(points[-1], solution, np.linalg.cond(jax.jacobian(exact)(solution)))
    if method.startswith("damping"):
        assert min(report["scale"] for report in reports) < 1e-5  # a third at each accepted step


def test_the_acceleration_is_half_the_second_derivative_of_the_curve_the_step_begins(x64):
    start = np.array([2.0, 0.7, 0.35])
    straight, _ = run(
        so.levenberg_marquardt(trust=so.trust.damping(0.5), acceleration=False), decay, start, 1
    )
    bent, _ = run(so.levenberg_marquardt(trust=so.trust.damping(0.5)), decay, start, 1)
    y = straight[1] - start
    jacobian = jax.jacobian(decay)(start)
    second = jnp.einsum("ijk,j,k->i", jax.hessian(decay)(start), y, y)
    scaling = np.diag(np.linalg.norm(jacobian, axis=0))
    stacked = np.concatenate([jacobian, np.sqrt(0.5) * scaling])
    a = np.linalg.lstsq(stacked, -np.concatenate([second, np.zeros(3)]))[0]
    assert np.linalg.norm(scaling @ a) < 0.75 * np.linalg.norm(scaling @ y)
    assert np.linalg.norm(a) > 1e-3 * np.linalg.norm(y)
    np.testing.assert_allclose(bent[1] - start, y + a / 2, rtol=1e-8)


def test_where_the_bend_is_as_long_as_the_step_the_step_stays_straight(x64):
    steep = lambda p: jnp.stack([jnp.exp(10 * p[0]) - 1, p[0] - 5])
    straight, _ = run(so.levenberg_marquardt(acceleration=False), steep, [0.3], 1)
    bent, _ = run(so.levenberg_marquardt(), steep, [0.3], 1)
    assert_close(bent, straight)
    no_number = lambda p: jnp.stack([jnp.sqrt(jnp.abs(p[0])) + 1, p[0] - 5])  # r″ = ∞ at 0
    points, _ = run(so.levenberg_marquardt(), no_number, [0.0], 3)
    assert np.all(np.isfinite(points))


@pytest.mark.slow
def test_the_acceleration_follows_a_curved_valley_in_half_the_steps(x64):
    steps = {}
    for acceleration in (False, True):
        method = so.levenberg_marquardt(trust=so.trust.damping(1e-3), acceleration=acceleration)
        solution = so.least_squares(rosenbrock, jnp.array([-120.0, 100.0]), method)
        assert bool(solution.success)
        steps[acceleration] = int(solution.steps)
    assert steps[True] < 0.5 * steps[False]


def test_a_search_takes_the_first_fraction_that_descends_further_than_the_next(x64):
    far = lambda p: jnp.arctan(p)  # a whole step goes to the other side and on
    points, reports = run(
        so.levenberg_marquardt(trust=so.trust.line_search(), acceleration=False), far, [4.0], 1
    )
    newton = -np.arctan(4.0) * 17
    values = [np.arctan(4 + newton * 0.5**k) ** 2 for k in range(12)]
    best = next(
        k for k in range(11) if values[k] < np.arctan(4) ** 2 and values[k + 1] >= values[k]
    )
    assert best > 0 and reports[0]["fraction"] == 0.5**best
    np.testing.assert_allclose(points[1], 4 + newton * 0.5**best, rtol=1e-6)


@pytest.mark.slow
def test_losses_other_than_least_squares_ignore_the_acceleration(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)))
    objective = so.compose(so.poisson(jnp.arange(20.0) % 4), lambda p: jnp.sin(x @ p))
    taken = []
    for acceleration in (False, True):
        tx, p = so.levenberg_marquardt(acceleration=acceleration), jnp.full(3, 0.3)
        value, grad = jax.value_and_grad(objective)(p)
        taken.append(tx.update(grad, tx.init(p), p, value=value, grad=grad, value_fn=objective)[0])
    assert_close(*taken, 100)


@pytest.mark.quick(1)
@pytest.mark.parametrize("method", [so.levenberg_marquardt, so.dogleg, so.hybrid_newton])
def test_what_the_noise_of_one_parameter_hides_of_another_is_taken_by_a_last_step(method):
    # Brown's badly scaled function: beside x₁ = 1e6, any error of x₂ passes for rounding.
    residual = lambda x: jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])
    solve = jax.jit(lambda x: so.least_squares(residual, x, method(), tol=1e-4))
    solution = solve(jnp.ones(2, jnp.float32))
    assert bool(solution.success)
    np.testing.assert_allclose(solution.params, [1e6, 2e-6], rtol=1e-6)
