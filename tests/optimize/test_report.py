"""Reports: a dozen lines with the right numbers, of any fit or solution."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from tolerances import assert_close

import secondorder as so

X = np.linspace(0.0, 4.0, 40)
Y = 2.0 * np.exp(-1.3 * X) + 0.5 + 0.01 * np.cos(37 * X)
START = {"a": 1.0, "rate": 1.0, "c": np.zeros(1)}


def curve(p, x):
    return p["a"] * jnp.exp(-p["rate"] * x) + p["c"][0]


def test_statistics_are_those_of_scipy_and_of_the_formulas(x64):
    fit = so.curve_fit(curve, X, Y, START)
    f = lambda x, a, c, rate: a * np.exp(-rate * x) + c
    best, covariance = scipy.optimize.curve_fit(f, X, Y, (1.0, 0.0, 1.0), xtol=1e-14, ftol=1e-14)
    chi = np.sum((f(X, *best) - Y) ** 2)
    errors = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(fit.chi_square, chi, rtol=1e-8)
    np.testing.assert_allclose(fit.reduced_chi_square, chi / 37, rtol=1e-8)
    np.testing.assert_allclose(fit.correlation, covariance / np.outer(errors, errors), rtol=1e-4)
    np.testing.assert_allclose(fit.aic, 40 * np.log(chi / 40) + 6, rtol=1e-8)
    np.testing.assert_allclose(fit.bic, 40 * np.log(chi / 40) + 3 * np.log(40), rtol=1e-8)
    absolute = so.curve_fit(curve, X, Y, START, sigma=np.full(40, 2.0), absolute_sigma=True)
    assert_close(absolute.reduced_chi_square, chi / 4 / 37, 1e4)


def test_a_fit_prints_its_parameters_errors_and_status_in_a_dozen_lines(x64):
    fit = so.curve_fit(curve, X, Y, START)
    text = str(fit)
    assert text == repr(fit) == fit.report() and len(text.splitlines()) <= 12
    for shown in ("levenberg_marquardt", "rate", "c[0]", "37 degrees of freedom", "correlations"):
        assert shown in text
    assert f"{float(fit.params['rate']):.8g}" in text
    assert f"{float(fit.standard_errors['rate']):.3g}" in text


@pytest.mark.slow
@pytest.mark.parametrize("style, mark", [("markdown", "| rate |"), ("latex", "rate & ")])
def test_a_report_has_other_styles(style, mark):
    fit = so.curve_fit(curve, X, Y, START)
    assert mark in fit.report(style)
    with pytest.raises(ValueError, match="style="):
        fit.report("pdf")


@pytest.mark.slow
def test_a_fit_is_saved_without_its_functions():
    fit = so.curve_fit(lambda p, x: p["a"] * x, X, Y, {"a": 1.0})
    again = copy.deepcopy(fit)
    assert again.problem is None and fit.problem is not None
    assert again.params["a"] == fit.params["a"] and again.report() == fit.report()


@pytest.mark.slow
def test_a_report_is_safe_in_its_language():
    model = lambda p, x: p["a_b"][0] * x + p["x<y|z"]
    fit = so.curve_fit(model, X, Y, {"a_b": np.ones(1), "x<y|z": 0.0}, fixed=["x<y|z"])
    assert r"a\_b{[}0] & " in fit.report("latex") and r"x\textless{}y|z" in fit.report("latex")
    lines = fit.report("latex").splitlines()
    inside = slice(lines.index(r"\begin{tabular}{lrrr}"), lines.index(r"\end{tabular}") + 1)
    del lines[inside]
    assert all(line.startswith("%") for line in lines)  # what is beside the table is a comment
    assert r"| x<y\|z | 0 | held | fixed |" in fit.report("markdown")
    page = fit._repr_html_()
    assert page == fit.report("html") and "<td>x&lt;y|z</td>" in page and "0.0" in page


@pytest.mark.slow
def test_held_and_undetermined_parameters_are_named_so():
    model = lambda p, x: p["a"] + 0 * p["b"] + p["c"] * x
    held = ({"a": -9.0, "b": -9.0, "c": 1.0}, {"a": 9.0, "b": 9.0, "c": 1.0})
    text = str(so.curve_fit(model, X, Y, {"a": 0.0, "b": 0.0, "c": 1.0}, bounds=held))
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert "undetermined" in rows["b"] and "held" in rows["c"]


@pytest.mark.slow
def test_batches_traced_fits_and_long_trees_stay_short():
    fits = jax.vmap(lambda y: so.curve_fit(curve, X, y, START))(jnp.stack([Y, Y + 1]))
    assert "Fit of 2 data sets" in str(fits) and "2 solves" in str(fits.solution)
    assert fits.aic.shape == fits.bic.shape == (2,) and fits.correlation.shape == (2, 3, 3)
    seen = []

    @jax.jit
    def traced(y):
        fit = so.curve_fit(curve, X, y, START)
        seen.append(str(fit) + str(fit.solution))
        return fit.params

    traced(Y)
    assert len(seen[0]) < 2000
    long = so.minimize(lambda p: jnp.sum(p**2), jnp.ones(100), "bfgs")
    assert "and 88 more" in str(long) and "bfgs" in str(long)


def test_a_solution_keeps_no_jacobian_of_its_data():
    fit = so.curve_fit(curve, X, Y, START)
    assert not [leaf for leaf in jax.tree.leaves(fit) if np.size(leaf) >= X.size]


def test_a_method_is_found_by_its_name():
    found = so.minimize(lambda p: jnp.sum((p - 2) ** 2), jnp.zeros(2), "bfgs")
    assert found.method == "bfgs" and bool(found.success)
    fit = so.curve_fit(curve, X, Y, START, "dogleg")
    assert fit.solution.method == "dogleg"
    with pytest.raises(ValueError, match="no optimizer of the name 'bgfs'.*newton_cg"):
        so.minimize(jnp.sum, jnp.zeros(2), "bgfs")
    with pytest.raises(ValueError, match=r"needs example: pass so\.kfac"):
        so.minimize(jnp.sum, jnp.zeros(2), "kfac")
