"""Profiles of χ²: intervals and contours, against lmfit and against the formulas."""

import jax
import jax.numpy as jnp
import lmfit
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from tolerances import assert_close

import secondorder as so
from secondorder.optimize import _quantiles

X = np.linspace(0.0, 4.0, 40)
Y = 2.0 * np.exp(-1.3 * X) + 0.5 + 0.05 * np.cos(37 * X)
START = {"a": 1.0, "rate": 1.0, "c": 0.1}


def curve(p, x):
    return p["a"] * jnp.exp(-p["rate"] * x) + p["c"]


@pytest.fixture(scope="module")
def theirs():
    model = lmfit.Model(lambda x, a, rate, c: a * np.exp(-rate * x) + c)
    tight = {"xtol": 1e-14, "ftol": 1e-14}
    return model.fit(Y, model.make_params(**START), x=X, fit_kws=tight)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-4), (np.float32, 1e-2)])
def test_profile_intervals_are_lmfits(theirs, dtype, close, x64):
    start = jax.tree.map(dtype, START)
    fit = so.curve_fit(curve, X.astype(dtype), Y.astype(dtype), start)
    for level in (0.95, 0.999):
        low, high = fit.confidence_intervals(level, method="profile")
        known = lmfit.conf_interval(theirs, theirs, sigmas=[level], maxiter=2000)
        for name, ends in known.items():
            width = ends[2][1] - ends[0][1]
            assert abs(low[name] - ends[0][1]) < close * width
            assert abs(high[name] - ends[2][1]) < close * width
            assert low[name].dtype == dtype
    assert high["rate"] - fit.params["rate"] > 1.05 * (fit.params["rate"] - low["rate"])


@pytest.mark.slow
def test_a_profile_of_a_linear_parameter_is_students_interval(x64):
    line = lambda p, x: p["b"] * x + p["c"]
    for options in ({}, {"sigma": 0.1, "absolute_sigma": True}, {"fixed": {"c": 0.3}}):
        fit = so.curve_fit(line, X, Y, {"b": 1.0, "c": 0.0}, **options)
        ends = fit.confidence_intervals(0.9), fit.confidence_intervals(0.9, "profile")
        for ours, known in zip(jax.tree.leaves(ends[1]), jax.tree.leaves(ends[0]), strict=True):
            np.testing.assert_allclose(ours, known, rtol=1e-5)


@pytest.mark.slow
def test_an_end_is_at_a_bound_or_at_infinity_or_unknown(x64):
    fit = so.curve_fit(curve, X, Y, START, bounds={"c": (0.49, 0.6), "rate": (None, 1.32)})
    low, high = fit.confidence_intervals(0.95, "profile")
    assert low["c"] == 0.49 and high["rate"] == 1.32 and 0.5 < high["c"] < 0.6
    # So few points that a rate of any size explains them: χ² never rises to the level.
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 0.05, -0.02, 0.03])
    decay = lambda p, x: p["a"] * jnp.exp(-p["rate"] * x)
    steep = so.curve_fit(decay, x, y, {"a": 1.0, "rate": 2.0}, sigma=0.1, absolute_sigma=True)
    low, high = steep.confidence_intervals(0.95, "profile")
    assert np.isposinf(high["rate"]) and 0 < low["rate"] < steep.params["rate"]

    def chi(rate):  # at the best amplitude
        e = np.exp(-rate * x)
        return np.sum(((y - y @ e / (e @ e) * e) / 0.1) ** 2)

    rise = lambda rate: chi(rate) - steep.chi_square - scipy.stats.norm.ppf(0.975) ** 2
    known = scipy.optimize.brentq(rise, 0.5, float(steep.params["rate"]))
    np.testing.assert_allclose(low["rate"], known, rtol=1e-5)
    wave = lambda p, x: jnp.cos(p["w"] * x)
    local = so.curve_fit(wave, X, np.cos(3 * X), {"w": 6.0})  # not the lowest minimum
    low, high = local.confidence_intervals(0.999999, "profile")
    assert np.isnan(low["w"])


@pytest.mark.slow
def test_fixed_held_tied_and_undetermined_parameters_have_their_ends(x64):
    more = lambda p, x: curve(p, x) + (p["u"] + p["v"]) * 0
    fit = so.curve_fit(
        more, X, Y, START | {"u": 0.0, "v": 0.0}, fixed={"c": 0.5},
        tied={"a": lambda p: 4 * p["c"] * p["rate"] / 1.3}, bounds={"v": (0.0, 0.0)},
    )  # fmt: skip
    low, high = fit.confidence_intervals(0.95, "profile")
    assert low["c"] == high["c"] == 0.5 and low["v"] == high["v"] == 0
    assert np.isnan(low["a"]) and np.isneginf(low["u"]) and np.isposinf(high["u"])
    assert low["rate"] < fit.params["rate"] < high["rate"]


@pytest.mark.slow
def test_a_grid_is_lmfits_with_probabilities_by_the_f_test(theirs, x64):
    fit = so.curve_fit(curve, X, Y, START)
    found = fit.profile("a", "rate", points=4, level=0.9)
    ends = [tuple(np.asarray(axis)[[0, -1]]) for axis in found.values]
    *_, chi = lmfit.conf_interval2d(theirs, theirs, "a", "rate", 4, 4, ends, chi2_out=True)
    np.testing.assert_allclose(found.chi_square, chi.T[::-1, ::-1], rtol=1e-6)
    f = (found.chi_square / fit.chi_square - 1) * 37 / 2
    np.testing.assert_allclose(found.probability, scipy.stats.f.cdf(f, 2, 37), rtol=1e-6)
    assert_close(found.params["a"][2, 1], found.values[0][2])
    assert_close(found.params["rate"][2, 1], found.values[1][1])
    line = fit.profile("rate", points=5, level=0.9)
    t = np.sqrt((line.chi_square / fit.chi_square - 1) * 37)
    expected = scipy.stats.t.cdf(t, 37) - scipy.stats.t.cdf(-t, 37)
    np.testing.assert_allclose(line.probability, expected, atol=1e-6)
    assert line.chi_square[2] == pytest.approx(float(fit.chi_square), rel=1e-8)


def test_quantiles_are_scipys(x64):
    for nu in (1.0, 5.0, 200.0):
        pair = _quantiles.pair_quantile(0.95, jnp.array(nu))
        np.testing.assert_allclose(pair, scipy.stats.f.ppf(0.95, 2, nu), rtol=1e-6)
        np.testing.assert_allclose(_quantiles.pair_probability(pair, jnp.array(nu)), 0.95)
    np.testing.assert_allclose(
        2 * _quantiles.pair_quantile(0.95, jnp.inf), scipy.stats.chi2.ppf(0.95, 2), rtol=1e-6
    )
    np.testing.assert_allclose(_quantiles.pair_probability(3.0, jnp.inf), 1 - np.exp(-3))
    np.testing.assert_allclose(
        _quantiles.student_probability(jnp.array(1.96), jnp.inf), 0.95, rtol=1e-4
    )


@pytest.mark.slow
def test_a_robust_profile_is_near_the_robust_error(x64):
    y = Y + np.where(np.arange(40) % 9 == 5, 1.0, 0.0)
    fit = so.curve_fit(curve, X, y, START, loss=so.soft_l1(0.1))
    low, high = fit.confidence_intervals(0.3, "profile")  # a small region is an ellipse
    near, far = fit.confidence_intervals(0.3)
    for name in START:
        np.testing.assert_allclose(high[name] - low[name], far[name] - near[name], rtol=0.15)


def test_what_a_profile_needs_is_said_in_a_sentence():
    fit = so.curve_fit(curve, X, Y, START, fixed="c")
    for call in (lambda: fit.profile("c"), lambda: fit.profile("q"), lambda: fit.profile()):
        with pytest.raises(ValueError, match="one or two of the free parameters a, rate"):
            call()
    with pytest.raises(ValueError, match="pass t or profile"):
        fit.confidence_intervals(0.95, "bootstrap")
    with pytest.raises(ValueError, match="level=95; pass a probability"):
        fit.confidence_intervals(95)
    for lost in (jax.tree.map(jnp.asarray, fit), jax.jit(lambda f: f)(fit)):
        with pytest.raises(ValueError, match="from fit.params"):
            lost.confidence_intervals(0.95, "profile")
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), fit)
    with pytest.raises(ValueError, match="this is a batch"):
        batch.profile("a")
