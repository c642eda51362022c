"""Missing data, several data sets, and robust losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from tolerances import assert_close

import secondorder as so

X = np.linspace(0.0, 4.0, 40)
Y = 2.0 * np.exp(-1.3 * X) + 0.5 + 0.05 * np.cos(37 * X)
START = {"a": 1.0, "rate": 1.0, "c": 0.1}


def curve(p, x):
    return p["a"] * jnp.exp(-p["rate"] * x) + p["c"]


def assert_same(fit, known, condition=1e6):
    assert fit.degrees_of_freedom == known.degrees_of_freedom
    assert fit.observations == known.observations
    for ours, other in ((fit.params, known.params), (fit.standard_errors, known.standard_errors)):
        jax.tree.map(lambda a, b: assert_close(a, b, condition), ours, other)
    assert_close(fit.chi_square, known.chi_square, condition)


SPOILT = {
    "y": lambda x, y, s: (x, np.where(np.arange(40) % 9 == 2, np.nan, y), s),
    "x": lambda x, y, s: (np.where(np.arange(40) == 5, np.inf, x), y, s),
    "sigma": lambda x, y, s: (x, y, np.where(np.arange(40) == 7, np.nan, s)),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("place", SPOILT)
def test_points_that_are_not_finite_are_left_out_as_if_they_had_not_been_there(place, dtype, x64):
    x, y, sigma = (a.astype(dtype) for a in SPOILT[place](X, Y, 0.05 + 0.01 * X))
    start = jax.tree.map(dtype, START)
    fit = so.curve_fit(curve, x, y, start, sigma=sigma, nan_policy="omit")
    kept = np.isfinite(x + y + sigma)
    known = so.curve_fit(curve, x[kept], y[kept], start, sigma=sigma[kept])
    assert kept.sum() < 40 and bool(fit.solution.success)
    assert_same(fit, known)
    with pytest.raises(ValueError, match=f'not finite in {place}. Pass nan_policy="omit"'):
        so.curve_fit(curve, x, y, start, sigma=sigma, nan_policy="raise")
    if place != "x":
        plain = so.curve_fit(curve, x, y, start, sigma=sigma)
        assert plain.solution.status == so.Status.NONFINITE


@pytest.mark.slow
def test_what_is_left_out_has_neither_covariance_nor_gradient(x64):
    y = np.where(np.arange(40) % 9 == 2, np.nan, Y)
    kept, matrix = np.isfinite(y), 0.01 * np.exp(-np.abs(X[:, None] - X))
    fit = so.curve_fit(curve, X, y, START, sigma=matrix, nan_policy="omit")
    part = so.curve_fit(curve, X[kept], y[kept], START, sigma=matrix[np.ix_(kept, kept)])
    assert_same(fit, part)
    rate = lambda y: so.curve_fit(curve, X, y, START, nan_policy="omit").params["rate"]
    slopes = jax.jit(jax.grad(rate))(y)
    other = jax.grad(lambda y: so.curve_fit(curve, X[kept], y, START).params["rate"])(y[kept])
    np.testing.assert_array_equal(slopes[~kept], 0)
    assert_close(slopes[kept], other, 1e6)
    many = jax.vmap(lambda y: so.curve_fit(curve, X, y, START, nan_policy="omit"))
    found = many(jnp.stack([y, Y]))
    np.testing.assert_array_equal(found.observations, [kept.sum(), 40])
    np.testing.assert_array_equal(found.degrees_of_freedom, [kept.sum() - 3, 37])


@pytest.mark.slow
def test_several_data_sets_share_parameters(x64):
    y2 = 3.0 * np.exp(-1.3 * X[:20]) + 0.02 * np.sin(20 * X[:20])
    both = lambda p, x: {"first": curve(p, x[0]), "second": p["b"] * jnp.exp(-p["rate"] * x[1])}
    start, sigma = START | {"b": 1.0}, {"first": 0.05, "second": np.full(20, 0.02)}
    data = {"first": Y, "second": y2}
    fit = so.curve_fit(both, (X, X[:20]), data, start, sigma=sigma)
    joined = lambda p, x: jnp.concatenate(jax.tree.leaves(both(p, (x[:40], x[40:]))))
    weights = np.concatenate([np.full(40, 0.05), np.full(20, 0.02)])
    known = so.curve_fit(
        joined, np.concatenate([X, X[:20]]), np.concatenate([Y, y2]), start, sigma=weights
    )
    assert_same(fit, known)
    with pytest.raises(ValueError, match="predictions shaped like y"):
        so.curve_fit(lambda p, x: {"first": curve(p, x[0])}, (X, X[:20]), data, start)
    with pytest.raises(ValueError, match="sigma of the structure"):
        so.curve_fit(both, (X, X[:20]), data, start, sigma={"first": 1.0})
    missing = data | {"second": np.where(np.arange(20) == 3, np.nan, y2)}
    fit = so.curve_fit(both, (X, X[:20]), missing, start, sigma=sigma, nan_policy="omit")
    assert fit.observations == 59 and bool(fit.solution.success)


def psi_of(loss, r, scale):
    """ψ and ψ' of each loss, from its formula."""
    u = np.abs(r) / scale
    if loss == "huber":
        return np.clip(r, -scale, scale), (u <= 1).astype(float)
    if loss == "soft_l1":
        return r / np.sqrt(1 + u**2), (1 + u**2) ** -1.5
    return r / (1 + u**2), (1 - u**2) / (1 + u**2) ** 2  # cauchy


@pytest.mark.quick(1)
@pytest.mark.parametrize("loss", ["huber", "soft_l1", "cauchy"])
def test_a_robust_fit_has_hubers_covariance(loss, x64):
    y = Y + np.where(np.arange(40) % 9 == 0, 1.0, 0.0)
    scale = 0.1
    fit = so.curve_fit(curve, X, y, START, loss=getattr(so, loss)(scale))
    f = lambda p: p[0] * np.exp(-p[2] * X) + p[1]
    known = scipy.optimize.least_squares(
        lambda p: f(p) - y, (2.0, 0.5, 1.3), loss=loss, f_scale=scale, xtol=1e-14, ftol=1e-14,
        gtol=1e-14, x_scale="jac",
    )  # fmt: skip
    params = np.array(jax.tree.leaves(fit.params))
    np.testing.assert_allclose(params, known.x, rtol=1e-5)
    np.testing.assert_allclose(fit.chi_square, 2 * known.cost, rtol=1e-8)
    a, c, rate = params
    e = np.exp(-rate * X)
    J = np.stack([e, np.ones(40), -a * X * e], axis=1)
    psi, slope = psi_of(loss, f(params) - y, scale)
    m, n, mean = 40, 3, np.mean(slope)
    k = 1 + n / m * np.var(slope) / mean**2
    expected = k**2 * np.sum(psi**2) / (m - n) / mean**2 * np.linalg.inv(J.T @ J)
    assert_close(fit.covariance, expected, 1e6)


@pytest.mark.slow
def test_a_wide_loss_is_least_squares(x64):
    known, fit = (so.curve_fit(curve, X, Y, START, loss=loss) for loss in (None, so.huber(1e3)))
    assert_same(fit, known)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e6), fit.covariance, known.covariance)


def test_bad_losses_and_policies_get_a_sentence():
    with pytest.raises(TypeError, match="pass huber, soft_l1"):
        so.curve_fit(curve, X, Y, START, loss="huber")
    with pytest.raises(ValueError, match="loss beside absolute_sigma=True"):
        so.curve_fit(curve, X, Y, START, loss=so.huber(), sigma=1.0, absolute_sigma=True)
    with pytest.raises(ValueError, match="pass one of propagate, raise, omit"):
        so.curve_fit(curve, X, Y, START, nan_policy="drop")


def test_a_callback_gets_all_parameters_and_may_end_the_fit(x64):
    seen = []

    def callback(iterate):
        seen.append(iterate)
        return len(seen) == 3

    options = {"fixed": {"c": 0.5}, "tied": {"a": lambda p: 4 * p["c"]}, "callback": callback}
    fit = so.curve_fit(curve, X, Y, START, **options)
    assert fit.solution.status == so.Status.STOPPED and len(seen) == 3
    assert all(it.params["a"] == 2.0 and it.params["c"] == 0.5 for it in seen)
    assert_close(seen[-1].params["rate"], fit.params["rate"])
    assert_close(seen[-1].value, 0.5 * np.sum((curve(fit.params, X) - Y) ** 2))
