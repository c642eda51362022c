"""Fits and their uncertainty, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from tolerances import assert_close

import secondorder as so
from secondorder.optimize._fit import student_quantile

X = np.linspace(0.0, 2.0, 25)
RNG = np.random.default_rng(5)
Y = 3.0 * np.exp(-1.5 * X) + 0.5 + 0.05 * RNG.normal(size=25)
SIGMA = 0.02 + 0.05 * RNG.uniform(size=25)


def model(p, x):
    return p["a"] * jnp.exp(-p["b"] * x) + p["c"]


def start():
    return {"a": jnp.array(1.0), "b": jnp.array(1.0), "c": jnp.array(0.0)}


def peer(**options):
    curve = lambda x, a, b, c: a * np.exp(-b * x) + c
    return scipy.optimize.curve_fit(curve, X, Y, [1.0, 1.0, 0.0], xtol=1e-14, ftol=1e-14, **options)


CORRELATED = np.diag(SIGMA**2) + 1e-4 * np.exp(-np.abs(X[:, None] - X[None, :]))


@pytest.mark.quick(1)
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("sigma", [None, SIGMA, CORRELATED], ids=["none", "errors", "covariance"])
def test_parameters_and_covariance_are_scipys(sigma, absolute, x64):
    fit = so.curve_fit(model, X, Y, start(), sigma=sigma, absolute_sigma=absolute)
    params, covariance = peer(sigma=sigma, absolute_sigma=absolute)
    assert bool(fit.solution.success)
    np.testing.assert_allclose([fit.params[k] for k in "abc"], params, rtol=1e-5)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-4)
    errors = [fit.standard_errors[k] for k in "abc"]
    np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-4)
    assert all(bool(fit.determined[k]) for k in "abc")


@pytest.mark.slow
def test_a_parameter_the_data_leave_open_is_flagged_and_the_others_are_not(x64):
    open_model = lambda p, x: (p["a"] + p["d"]) * jnp.exp(-p["b"] * x) + p["c"]
    fit = so.curve_fit(open_model, X, Y, start() | {"d": jnp.array(0.5)})
    determined = {k: bool(v) for k, v in fit.determined.items()}
    assert determined == {"a": False, "b": True, "c": True, "d": False}
    assert np.isinf(fit.standard_errors["a"]) and np.isinf(fit.standard_errors["d"])
    known = so.curve_fit(model, X, Y, start())
    late = lambda p, x: jnp.where(x > 1, p["c"], open_model(p, x))  # of c alone from there on
    errors = fit.prediction_errors(late, jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(errors, [np.inf, known.standard_errors["c"]], rtol=1e-5)
    for k in "bc":
        np.testing.assert_allclose(fit.standard_errors[k], known.standard_errors[k], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.programs(400)
def test_errors_beside_a_parameter_that_equal_bounds_hold_are_those_of_a_fit_without_it(
    absolute, x64
):
    bounds = {k: jnp.array(-jnp.inf) for k in "ac"}, {k: jnp.array(jnp.inf) for k in "ac"}
    bounds = tuple(bound | {"b": jnp.array(1.4)} for bound in bounds)
    options = {"sigma": SIGMA, "absolute_sigma": absolute}
    fit = so.curve_fit(model, X, Y, start(), bounds=bounds, **options)
    without = so.curve_fit(
        lambda p, x: model(p | {"b": 1.4}, x), X, Y, {k: start()[k] for k in "ac"}, **options
    )
    assert bool(fit.solution.success) and fit.params["b"] == 1.4
    assert fit.degrees_of_freedom == without.degrees_of_freedom
    np.testing.assert_allclose(fit.covariance[::2, ::2], without.covariance, rtol=1e-6)
    np.testing.assert_array_equal(fit.covariance[1], 0)
    assert all(bool(flag) for flag in fit.determined.values())
    low, high = fit.confidence_intervals()
    assert low["b"] == high["b"] == 1.4
    curve = lambda p, x: p["b"] * x + p["c"]
    errors = fit.prediction_errors(curve, jnp.array([0.0, 2.0]))
    assert_close(errors, np.full(2, fit.standard_errors["c"]))


def test_a_held_parameter_of_an_array_is_told_from_its_neighbours_and_from_an_open_one(x64):
    curve = lambda p, x: p[0] * jnp.exp(-p[1] * x) + p[2] + 0 * p[3]
    first = jnp.array([1.0, 1.0, 0.4, 2.0])
    bounds = (
        jnp.where(jnp.arange(4) == 2, first, -jnp.inf),
        jnp.where(jnp.arange(4) == 2, first, jnp.inf),
    )
    fit = jax.jit(lambda bounds: so.curve_fit(curve, X, Y, first, bounds=bounds))(bounds)
    params, covariance = scipy.optimize.curve_fit(
        lambda x, a, b: a * np.exp(-b * x) + 0.4, X, Y, [1.0, 1.0], xtol=1e-14, ftol=1e-14
    )
    np.testing.assert_allclose(fit.params[:2], params, rtol=1e-5)
    np.testing.assert_allclose(fit.covariance[:2, :2], covariance, rtol=1e-4)
    np.testing.assert_array_equal(fit.standard_errors[2:], [0, np.inf])
    np.testing.assert_array_equal(fit.determined, [True, True, True, False])
    assert fit.degrees_of_freedom == X.size - 2


@pytest.mark.quick(1)
@pytest.mark.parametrize(("dtype", "powers"), [(np.float32, [20]), (np.float64, [150])])
def test_units_of_the_data_leave_the_range_of_squares_and_change_no_step(dtype, powers, x64):
    x, y = X.astype(dtype), Y.astype(dtype)
    curve = lambda p, x: p[0] * jnp.exp(-p[1] * x) + p[2]

    @jax.jit
    def found(unit):
        units = jnp.stack([unit, jnp.ones_like(unit), unit])
        fit = so.curve_fit(curve, x, unit * y, units * jnp.array([1, 1, 0], dtype))
        return fit.params / units, fit.standard_errors / units, fit.solution.steps, fit.solution

    params, errors, steps, _ = found(dtype(1))
    for power in [s * p for p in powers for s in (1, -1)]:
        *scaled, count, solution = found(dtype(10.0**power))
        assert bool(solution.success) and count == steps
        np.testing.assert_allclose(scaled[0], params, rtol=1e3 * np.finfo(dtype).eps)
        np.testing.assert_allclose(scaled[1], errors, rtol=1e4 * np.finfo(dtype).eps)


@pytest.mark.slow
def test_units_of_the_parameters_do_not_change_what_is_determined(x64):
    scaled = lambda p, x: 1e-9 * p["a"] * jnp.exp(-1e6 * p["b"] * x) + p["c"]
    begin = {"a": jnp.array(1e9), "b": jnp.array(1e-6), "c": jnp.array(0.0)}
    fit, known = so.curve_fit(scaled, X, Y, begin), so.curve_fit(model, X, Y, start())
    assert all(bool(v) for v in fit.determined.values())
    np.testing.assert_allclose(
        1e-9 * fit.standard_errors["a"], known.standard_errors["a"], rtol=1e-5
    )


def test_intervals_are_students_and_normal_for_absolute_errors(x64):
    for freedom in (1.0, 4.0, 22.0, 300.0):
        expected = scipy.stats.t.ppf(0.975, freedom)
        np.testing.assert_allclose(student_quantile(0.975, jnp.array(freedom)), expected, rtol=1e-8)
    assert_close(student_quantile(0.975, jnp.inf), 1.959963984540054, 10)
    fit = so.curve_fit(model, X, Y, start())
    low, high = fit.confidence_intervals(0.9)
    half = scipy.stats.t.ppf(0.95, 22) * fit.standard_errors["b"]
    np.testing.assert_allclose(high["b"] - fit.params["b"], half, rtol=1e-8)
    np.testing.assert_allclose(fit.params["b"] - low["b"], half, rtol=1e-8)


def test_errors_of_the_curve_follow_from_the_covariance(x64):
    fit = so.curve_fit(model, X, Y, start())
    points = jnp.array([0.0, 1.0])
    rows = jax.vmap(lambda x: jnp.stack(jax.tree.leaves(jax.grad(model)(fit.params, x))))(points)
    expected = np.sqrt(np.diag(rows @ fit.covariance @ rows.T))
    assert_close(fit.prediction_errors(model, points), expected, np.linalg.cond(fit.covariance))


@pytest.mark.slow
def test_fits_run_under_jit_and_vmap(x64):
    ys = jnp.stack([jnp.asarray(Y), 1.1 * jnp.asarray(Y)])
    fits = jax.jit(jax.vmap(lambda y: so.curve_fit(model, jnp.asarray(X), y, start())))(ys)
    alone = so.curve_fit(model, X, ys[1], start())
    np.testing.assert_allclose(fits.covariance[1], alone.covariance, rtol=1e-6)


def test_wrong_shapes_are_answered_in_a_sentence():
    with pytest.raises(ValueError, match="predictions shaped like y"):
        so.curve_fit(lambda p, x: p["a"], X, Y, start())
    with pytest.raises(ValueError, match="sigma of shape"):
        so.curve_fit(model, X, Y, start(), sigma=np.ones(3))


# Batches


@pytest.mark.slow
def test_a_batch_of_fits_has_the_errors_and_intervals_of_each(x64):
    curve = lambda p, x: p["a"] * jnp.exp(-p["b"][0] * x)
    observed = np.stack([3.0 * np.exp(-k * X) + 0.01 * np.cos(40 * X) for k in (1.0, 1.5, 2.0)])
    begin = {"a": jnp.array(1.0), "b": jnp.ones(1)}  # a leaf that broadcasts with the batch
    fits = jax.jit(jax.vmap(lambda y: so.curve_fit(curve, X, y, begin)))(observed)
    found = fits.confidence_intervals(), fits.prediction_errors(curve, X[:4])
    each = jax.vmap(lambda fit: (fit.confidence_intervals(), fit.prediction_errors(curve, X[:4])))
    expected = each(fits)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
    jax.tree.map(assert_close, found, expected)
    one = so.curve_fit(curve, X, observed[1], begin)
    jax.tree.map(lambda x, y: assert_close(x[1], y, 1e4), found[0], one.confidence_intervals())
