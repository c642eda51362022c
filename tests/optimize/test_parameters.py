"""Fixed, tied, shared and bounded parameters, against lmfit and against smaller fits."""

import jax
import jax.numpy as jnp
import lmfit
import numpy as np
import pytest
import scipy.optimize
from tolerances import assert_close

import secondorder as so

X = np.linspace(0.0, 4.0, 40)
Y = 2.0 * np.exp(-1.3 * X) + 0.5 + 0.05 * np.cos(37 * X)
START = {"a": 1.0, "rate": 1.0, "c": 0.1}
NAMES = ("a", "rate", "c")


def curve(p, x):
    return p["a"] * jnp.exp(-p["rate"] * x) + p["c"]


def theirs(**settings):
    """lmfit's result, with settings of its parameters."""
    model = lmfit.Model(lambda x, a, rate, c: a * np.exp(-rate * x) + c)
    params = model.make_params(**START)
    for name, options in settings.items():
        params[name].set(**options)
    return model.fit(Y, params, x=X, fit_kws={"xtol": 1e-12, "ftol": 1e-12})


def assert_is_lmfits(fit, known):
    assert bool(fit.solution.success)
    for name in NAMES:
        np.testing.assert_allclose(fit.params[name], known.params[name].value, rtol=1e-6)
        np.testing.assert_allclose(fit.standard_errors[name], known.params[name].stderr, rtol=1e-4)
    assert fit.degrees_of_freedom == known.nfree
    for ours, other in ((fit.reduced_chi_square, known.redchi), (fit.bic, known.bic)):
        np.testing.assert_allclose(ours, other, rtol=1e-6)
    np.testing.assert_allclose(fit.aic, known.aic, rtol=1e-6)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "fixed",
    [{"c": 0.4}, "c", ("c",), {"a": False, "rate": False, "c": True}, lambda p: {"c": np.True_}],
    ids=["value", "name", "names", "mask", "function"],
)
def test_a_fixed_parameter_is_lmfits_vary_false(fixed, x64):
    known = theirs(c={"value": 0.4, "vary": False})
    fit = so.curve_fit(curve, X, Y, START | {"c": 0.4}, fixed=fixed)
    assert_is_lmfits(fit, known)
    assert fit.params["c"] == 0.4 and fit.standard_errors["c"] == 0
    np.testing.assert_array_equal(fit.covariance[1], 0)
    assert all(bool(flag) for flag in fit.determined.values())
    assert len(jax.tree.leaves(fit.solution.params)) == 2
    low, high = fit.confidence_intervals()
    assert low["c"] == high["c"] == 0.4


def test_a_tied_parameter_is_lmfits_expression_with_its_error(x64):
    known = theirs(a={"expr": "3 * c**2 + rate"})
    fit = so.curve_fit(curve, X, Y, START, tied={"a": lambda p: 3 * p["c"] ** 2 + p["rate"]})
    assert_is_lmfits(fit, known)
    assert_close(fit.params["a"], 3 * fit.params["c"] ** 2 + fit.params["rate"])
    np.testing.assert_allclose(fit.correlation[1, 2], known.params["c"].correl["rate"], rtol=1e-3)
    points = np.array([0.0, 2.0])
    low, high = fit.confidence_band(points, 0.9)  # lmfit's, too, has the t factor
    np.testing.assert_allclose(
        high - low, 2 * known.eval_uncertainty(x=points, sigma=0.9), rtol=1e-3
    )


@pytest.mark.slow
def test_ties_read_fixed_values_and_earlier_ties_and_share_by_name(x64):
    peaks = lambda p, x: sum(
        q["height"] * jnp.exp(-(((x - q["at"]) / q["width"]) ** 2)) for q in p["peaks"]
    )
    peak = lambda height, at: {"height": height, "at": at, "width": 0.5}
    true = {"peaks": [peak(1.0, 1.0), peak(2.0, 2.5), peak(0.5, 3.5)]}
    y = peaks(true, X) + 0.01 * np.cos(50 * X)
    start = {"peaks": [peak(0.8, 0.9), peak(1.5, 2.6), peak(0.9, 3.4)]}
    tied = {"peaks.1.width": "peaks.0.width", "peaks.2.width": lambda p: p["peaks"][1]["width"]}
    fit = so.curve_fit(peaks, X, y, start, tied=tied, fixed={"peaks.2.at": 3.5})

    def of_free(v, x):
        (h0, a0, w, h1, a1, h2) = v
        return peaks(
            {"peaks": [
                {"height": h0, "at": a0, "width": w},
                {"height": h1, "at": a1, "width": w},
                {"height": h2, "at": 3.5, "width": w},
            ]}, x)  # fmt: skip

    known = so.curve_fit(of_free, X, y, jnp.array([0.8, 0.9, 0.5, 1.5, 2.6, 0.9]))
    widths = [q["width"] for q in fit.params["peaks"]]
    errors = [q["width"] for q in fit.standard_errors["peaks"]]
    np.testing.assert_allclose(widths, known.params[2], rtol=1e-6)
    np.testing.assert_allclose(errors, known.standard_errors[2], rtol=1e-4)
    assert fit.degrees_of_freedom == known.degrees_of_freedom
    assert "tied" in str(fit) and "fixed" in str(fit)


@pytest.mark.slow
def test_entries_of_an_array_are_fixed_and_tied_by_number(x64):
    line = lambda p, x: p[0] * jnp.exp(-p[1] * x) + p[2]
    known = so.curve_fit(curve, X, Y, START | {"c": 0.4}, fixed="c")
    start = np.array([1.0, 1.0, 0.4])
    for fixed in ({2: 0.4}, [False, False, True]):
        fit = so.curve_fit(line, X, Y, start, fixed=fixed)
        assert_close(fit.params, np.array([known.params[k] for k in NAMES]), 1e4)
        assert_close(fit.standard_errors, np.array([known.standard_errors[k] for k in NAMES]), 1e6)
        assert fit.solution.params.shape == (2,)
    tied = so.curve_fit(line, X, Y, start, tied={0: lambda p: 2 * p[1]}, bounds={1: (None, 0.9)})
    assert_close(tied.params[:2], np.array([1.8, 0.9]))
    assert_close(tied.standard_errors[0], 2 * tied.standard_errors[1], 1e3)


@pytest.mark.slow
def test_what_ties_leave_undetermined_is_told_from_what_they_determine(x64):
    sums = lambda p, x: (p["a"] + p["d"]) * jnp.exp(-p["rate"] * x) + p["c"] + 0 * p["s"]
    start = START | {"d": 0.5, "s": 0.0, "t": 0.0}
    tied = {"s": lambda p: p["a"] + p["d"], "t": lambda p: p["a"] + p["c"]}
    fit = so.curve_fit(sums, X, Y, start, tied=tied)
    known = so.curve_fit(curve, X, Y, START)
    found = {name: bool(flag) for name, flag in fit.determined.items()}
    assert found == {"a": False, "d": False, "t": False, "s": True, "c": True, "rate": True}
    np.testing.assert_allclose(fit.standard_errors["s"], known.standard_errors["a"], rtol=1e-4)
    assert np.isinf(fit.standard_errors["t"]) and fit.degrees_of_freedom == 37


def test_a_fit_without_free_parameters_is_a_statistic(x64):
    fit = so.curve_fit(curve, X, Y, START, fixed=list(START))
    assert bool(fit.solution.success) and fit.degrees_of_freedom == 40
    assert_close(fit.chi_square, np.sum((curve(START, X) - Y) ** 2))


@pytest.mark.slow
def test_fixed_values_are_data_under_jit_vmap_and_grad(x64):
    value = lambda c: so.curve_fit(curve, X, Y, START, fixed={"c": c}).params["rate"]
    found = jax.jit(jax.vmap(value))(jnp.array([0.4, 0.45]))
    for c, rate in zip((0.4, 0.45), found, strict=True):
        assert_close(so.curve_fit(curve, X, Y, START, fixed={"c": c}).params["rate"], rate, 1e4)
    slope = (value(0.4 + 1e-5) - value(0.4 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(value)(0.4), slope, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds",
    [
        {"rate": (None, 1.1)},
        {"rate": (-np.inf, 1.1), "a": (0, None)},
        ({}, {"rate": 1.1}),
        (None, {"rate": 1.1, "a": np.inf}),
        ({"a": 0.0, "rate": None, "c": -np.inf}, {"a": np.inf, "rate": 1.1, "c": None}),
    ],
    ids=range(5),
)
def test_bounds_may_leave_out_parameters_and_ends(bounds, x64):
    fit = so.curve_fit(curve, X, Y, START, bounds=bounds)
    known, covariance = scipy.optimize.curve_fit(
        lambda x, a, rate, c: a * np.exp(-rate * x) + c, X, Y, (1.0, 1.0, 0.1),
        bounds=((0, -np.inf, -np.inf), (np.inf, 1.1, np.inf)), xtol=1e-14, ftol=1e-14, gtol=1e-14,
    )  # fmt: skip
    np.testing.assert_allclose([fit.params[k] for k in NAMES], known, rtol=1e-5)
    errors = [fit.standard_errors[k] for k in NAMES]
    np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-3)
    residual = lambda p: curve(p, X) - Y
    solution = so.least_squares(residual, START, bounds=bounds)
    assert_close(solution.params["rate"], 1.1)


@pytest.mark.slow
def test_a_linear_parameter_may_be_fixed_or_tied_too(x64):
    linear = {"a": True, "rate": False, "c": True}
    for options in (
        {"fixed": {"c": 0.4}},
        {"tied": {"c": lambda p: p["a"] / 4}},
        {"fixed": "rate"},
    ):
        fit = so.curve_fit(curve, X, Y, START, separable=linear, **options)
        known = so.curve_fit(curve, X, Y, START, **options)
        for name in NAMES:
            np.testing.assert_allclose(fit.params[name], known.params[name], rtol=1e-6)
            np.testing.assert_allclose(
                fit.standard_errors[name], known.standard_errors[name], rtol=1e-5
            )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fixed": {"k": 1.0}}, "fixed names 'k', but the parameters are a, c, rate"),
        ({"fixed": {"a": np.ones(2)}}, "fixed has a value of the shape"),
        ({"fixed": (True, False)}, "fixed must have the tree structure"),
        ({"tied": {"a": 2.0}}, r"tied\['a'\] is 2.0; pass a function"),
        (
            {"tied": {"c": "a / 2"}},
            r"'a / 2', but .* An expression is a function of the parameters",
        ),
        ({"tied": lambda p: p}, "pass a dictionary from names to functions"),
        ({"tied": {"a": lambda p: p["c"] * jnp.ones(3)}}, "tied has a value of the shape"),
        ({"tied": {"a": lambda p: 1j * p["c"]}}, "complex"),
        ({"tied": {"a": "c"}, "fixed": "a"}, "a is fixed or tied twice"),
        ({"tied": {"a": lambda p: p["c"], "c": lambda p: p["rate"]}}, "none tied after it"),
        ({"tied": {"a": "c"}, "bounds": {"a": (0, 1)}}, "bounds limit a, which is tied"),
        ({"bounds": {"q": (0, 1)}}, "bounds names 'q'"),
        ({"bounds": {"a": 1.0}}, r"must be a pair \(lower, upper\)"),
        ({"bounds": {"a": (2.0, 1.0)}}, "bounds cross"),
    ],
)
def test_wrong_names_and_values_get_a_sentence(options, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        so.curve_fit(curve, X, Y, START, **options)
