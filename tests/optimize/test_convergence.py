"""The end of a solve at the floor of rounding, on a flat tail and towards infinity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import rounding

import secondorder as so
from experiments.testset import NIST

METHODS = ("levenberg_marquardt", "dogleg", "hybrid_newton")
X = jnp.linspace(-10, 10, 100)


def status(solution) -> str:
    return so.Status(int(solution.status)).name


def peak(p, x):
    return p[0] * jnp.exp(-(((x - p[1]) / p[2]) ** 2))


def below(p, x):
    """Two decays to a level; of data below it the best rates are infinite."""
    return 1 + jnp.exp(-p[0] * x) + jnp.exp(-p[1] * x)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", METHODS)
def test_data_of_few_digits_are_fitted_at_any_tolerance_in_as_many_steps(method):
    # The values of the last steps differ by the rounding of the residuals' parts, not of their sum.
    for places in (12, 6, 3):
        y = jnp.asarray(np.round(np.asarray(peak(jnp.array([5.0, -3.0, 1.5]), X)), places))
        start = jnp.array([1.0, -3.0, 14.0])
        tight = so.curve_fit(peak, X, y, start, method, tol=rounding())
        loose = so.curve_fit(peak, X, y, start, method)
        assert status(tight.solution) == status(loose.solution) == "CONVERGED"
        assert int(tight.solution.steps) <= int(loose.solution.steps) + 2 <= 25


@pytest.mark.quick(1)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", METHODS)
def test_a_start_on_a_flat_tail_is_no_success(method):
    x = jnp.linspace(1, 10, 60)
    fit = so.curve_fit(peak, x, 2 * jnp.exp(-0.7 * x), jnp.array([1.0, 90.0, 1.0]), method)
    assert status(fit.solution) == "NO_EFFECT"
    assert not fit.solution.success and not jnp.any(fit.determined)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["boxbod", "mgh17"])
def test_a_parameter_that_ran_off_to_a_flat_tail_is_named(name):
    problem = NIST[name]
    start = {f"b{k}": jnp.asarray(x, jnp.float32) for k, x in enumerate(problem.starts[0])}
    model = lambda p, x: problem.model(list(p.values()), x)
    fit = so.curve_fit(model, *map(jnp.float32, (problem.x, problem.y)), start)
    assert status(fit.solution) == "NO_EFFECT"
    (line,) = [line for line in fit.report().splitlines() if "without effect" in line]
    assert {"boxbod": "b1", "mgh17": "b4"}[name] in line


def test_a_parameter_that_the_model_never_uses_is_no_flat_tail():
    fit = so.curve_fit(lambda p, x: p[0] * x, X, 2 * X + jnp.cos(X), jnp.array([1.0, 3.0]))
    assert status(fit.solution) == "CONVERGED" and fit.params[1] == 3
    assert fit.determined.tolist() == [True, False]


@pytest.mark.usefixtures("x64")
def test_parameters_that_run_to_infinity_end_by_a_status_of_their_own():
    x = jnp.linspace(1, 10, 60)
    y = 0.9 + 0.01 * jnp.cos(40 * x)
    solve = lambda method: so.curve_fit(below, x, y, jnp.array([0.5, 1.0]), method).solution
    found = [solve(method) for method in ("levenberg_marquardt", "hybrid_newton")]
    assert [status(solution) for solution in found] == ["AT_INFINITY"] * 2
    assert max(int(solution.steps) for solution in found) < 80


@pytest.mark.quick(3)
@pytest.mark.slow
@pytest.mark.parametrize("name", NIST)
def test_no_fit_in_single_precision_claims_more_than_it_has(name):
    problem = NIST[name]
    x, y = jnp.float32(problem.x), jnp.float32(problem.y)
    for start in problem.starts:
        fit = so.curve_fit(problem.model, x, y, jnp.float32(start))
        params = np.asarray(fit.params, np.float64)
        with jax.enable_x64(True):
            found = float(problem.function(params))
            slopes = np.asarray(jax.jacfwd(problem.residual)(jnp.asarray(problem.params)))
        # Rounding of the parameters moves the residuals so far.
        moved = np.finfo(np.float32).eps * np.linalg.norm(slopes * problem.params)
        reachable = 1.01 * (problem.squares**0.5 + moved) ** 2
        # Of residuals that are rounding themselves, no part can be told.
        reachable = max(reachable, (30 * moved) ** 2)
        assert not fit.solution.success or found <= reachable


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["bfgs", "ssbroyden", "lbfgs", "newton_cg"])
def test_parameters_that_wobble_around_zero_have_not_run_off(name, x64):
    """A quadratic beside a constant: near its minimum steps promise nothing, and zeros grow."""
    curved = jnp.geomspace(1.0, 1e6, 12)
    value = lambda p: 0.5 * jnp.sum(curved * p**2) + 1
    found = so.minimize(value, jnp.linspace(0.0, 1.0, 12), name)
    assert so.Status(int(found.status)) is so.Status.CONVERGED


@pytest.mark.quick(2)
@pytest.mark.parametrize("optimizer", [so.levenberg_marquardt, so.dogleg, so.hybrid_newton])
@pytest.mark.parametrize("unit", [1.0, 1e6, 1e-6])
def test_a_parameter_that_starts_at_zero_does_not_shrink_the_first_radius(x64, optimizer, unit):
    """Powell's badly scaled function from ten times its start: x = 0 shows no length."""

    def residual(z):
        x = z * jnp.array([unit, 1 / unit])
        return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.sum(jnp.exp(-x)) - 1.0001])

    start = jnp.array([0.0, 10.0 * unit])
    fit = so.least_squares(residual, start, optimizer(), max_steps=30)
    assert fit.success
    assert fit.value < 1e-4**2 / 1e3  # half the square of 1e-4 where x[1] is infinite


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["mgh09", "enso"])
def test_a_fit_in_float32_goes_on_where_parameters_move_and_the_value_does_not(name):
    problem = NIST[name]
    fit = so.least_squares(
        problem.residual, jnp.asarray(np.asarray(problem.starts[1]), jnp.float32)
    )
    assert status(fit) == "CONVERGED"
    error = np.abs(np.asarray(fit.params, float) / np.asarray(problem.params) - 1)
    assert np.max(error) < 3e-4  # 8e-4 and 5e-3 at the first point that passed the test
