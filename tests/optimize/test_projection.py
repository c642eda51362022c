"""Variable projection: the fit over all parameters, found by searching for some of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import assert_close, condition_of, rounding

import secondorder as so
from experiments.testset.mgh_data import OSBORNE_1
from secondorder.optimize._projection import frame, project

X = np.linspace(0.0, 2.0, 25)
RNG = np.random.default_rng(5)
Y = 3.0 * np.exp(-1.5 * X) + 0.5 + 0.05 * RNG.normal(size=25)
SIGMA = 0.02 + 0.05 * RNG.uniform(size=25)
CORRELATED = np.diag(SIGMA**2) + 1e-4 * np.exp(-np.abs(X[:, None] - X[None, :]))
MASK = {"a": True, "b": False, "c": True}


def model(p, x):
    return p["a"] * jnp.exp(-p["b"] * x) + p["c"]


def start():
    return {"a": jnp.array(1.0), "b": jnp.array(1.0), "c": jnp.array(0.0)}


def exponentials(p, x):
    """A constant and as many exponentials as there are rates."""
    return p["floor"] + jnp.exp(-x[:, None] * p["rates"]) @ p["heights"]


TIMES = 10.0 * np.arange(33)
HEIGHTS_ARE_LINEAR = {"floor": True, "heights": True, "rates": False}


def osborne(rates, heights=(1.0, -1.0), floor=0.0):
    return {"floor": jnp.array(floor), "heights": jnp.array(heights), "rates": jnp.array(rates)}


def fit_osborne(rates, separable=HEIGHTS_ARE_LINEAR, **options):
    begin = osborne(rates, **options)
    return so.curve_fit(exponentials, jnp.asarray(TIMES), OSBORNE_1, begin, separable=separable)


OSBORNE_VALUE = 5.46489e-5  # the published minimum of ‖r‖²


def assert_same_fit(fit, full, rtol=1e-5):
    """All that a fit reports, beside its search."""
    assert bool(fit.solution.success) and bool(full.solution.success)
    np.testing.assert_allclose(fit.solution.value, full.solution.value, rtol=rtol)
    assert jax.tree.structure(fit.params) == jax.tree.structure(full.params)
    for name in ("params", "standard_errors", "determined", "degrees_of_freedom"):
        pairs = zip(*map(jax.tree.leaves, (getattr(fit, name), getattr(full, name))), strict=True)
        for one, other in pairs:
            assert one.dtype == other.dtype and one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=rtol)
    spread = np.sqrt(np.diag(full.covariance))
    scaled = lambda fit: fit.covariance / np.outer(spread, spread)
    np.testing.assert_allclose(scaled(fit), scaled(full), rtol=0, atol=10 * rtol)


# ------------------------------------------------------------------ the projection itself


def matrices(k):
    """``A`` and ``b`` along a curve, of rank three throughout, whatever ``k``."""
    t = jnp.linspace(0, 3, 9)
    a = jnp.stack([jnp.exp(-k[0] * t), jnp.exp(-k[1] * t), jnp.sin(t) + k[0]], axis=1)
    return a, jnp.cos(t * k[1]) + k[0]


def both(k, deficient=False):
    """``c`` and ``ρ`` in one vector; deficient: with a fourth column equal to the first."""
    a, b = matrices(k)
    a = jnp.concatenate([a, a[:, :1]], axis=1) if deficient else a
    return jnp.concatenate(project(a, *frame(a), b, jnp.zeros(a.shape[1])))


@pytest.mark.quick(1)
@pytest.mark.parametrize("deficient", [False, True])
def test_the_projection_is_numpys_least_squares(deficient, x64):
    a, b = matrices(jnp.array([0.5, 1.5]))
    a = jnp.concatenate([a, a[:, :1]], axis=1) if deficient else a
    c, rho = project(a, *frame(a), b, jnp.zeros(a.shape[1]))
    kappa = condition_of(a)
    assert_close(c, -np.linalg.lstsq(a, b, rcond=1e-10)[0], kappa**2)
    assert_close(rho, b + a @ c, kappa, norm=np.linalg.norm(b))


@pytest.mark.slow
@pytest.mark.parametrize("deficient", [False, True])
def test_its_derivatives_are_those_of_finite_differences(deficient, x64):
    k, eps = jnp.array([0.5, 1.5]), 1e-5
    value = lambda k: jnp.sum(both(k, deficient) ** 3)
    for fn in (lambda k: both(k, deficient), jax.grad(value)):
        fast = jax.jit(fn)
        differences = [(fast(k + eps * e) - fast(k - eps * e)) / (2 * eps) for e in np.eye(2)]
        expected = np.stack(differences, axis=-1)
        size = np.abs(expected).max()
        np.testing.assert_allclose(jax.jit(jax.jacfwd(fn))(k), expected, atol=1e-7 * size)
        np.testing.assert_allclose(jax.jit(jax.jacrev(fn))(k), expected, atol=1e-7 * size)


def test_the_residual_is_orthogonal_to_columns_however_close_and_badly_scaled(x64):
    t = np.linspace(0, 1, 30)
    a = jnp.stack([jnp.exp(-t), 1e9 * jnp.exp(-(1 + 1e-9) * t), 1e-9 * jnp.ones(30)], axis=1)
    _, rho = project(a, *frame(a), jnp.sin(40 * t), jnp.zeros(3))
    cosines = rho @ a / (np.linalg.norm(a, axis=0) * np.linalg.norm(rho))
    assert np.abs(cosines).max() < rounding(norm=np.sqrt(30))


# ------------------------------------------------------------------ the same answer, sooner


@pytest.mark.slow
def test_osborne_1_is_the_full_fit_in_fewer_steps(x64):
    fit = fit_osborne([0.01, 0.02], heights=[1.5, -1.0], floor=0.5)
    full = fit_osborne([0.01, 0.02], None, heights=[1.5, -1.0], floor=0.5)
    assert_same_fit(fit, full, rtol=1e-4)
    np.testing.assert_allclose(2 * fit.solution.value, OSBORNE_VALUE, rtol=1e-5)
    assert int(fit.solution.steps) < int(full.solution.steps)
    assert int(fit.solution.evaluations.jacobians) < int(full.solution.evaluations.jacobians)


@pytest.mark.slow
@pytest.mark.programs(400)
def test_from_a_poor_start_it_takes_half_of_the_full_fits_steps(x64):
    poor = {"heights": [1.0, 1.0], "floor": 1.0}
    fit, full = fit_osborne([1.0, 0.5], **poor), fit_osborne([1.0, 0.5], None, **poor)
    assert bool(fit.solution.success)
    assert int(fit.solution.steps) <= int(full.solution.steps) / 2
    np.testing.assert_allclose(2 * fit.solution.value, OSBORNE_VALUE, rtol=1e-5)


@pytest.mark.slow
def test_three_exponentials_in_any_units_are_the_full_fit(x64):
    x = jnp.arange(24) * 0.05
    units = jnp.array([1e6, 1.0, 1e-6])

    def scaled(p, x):
        rates = p["rates"] / units
        return exponentials({"floor": 0.0, "heights": p["heights"] * units, "rates": rates}, x)

    rates, heights = np.array([1.0, 3.0, 5.0]), np.array([0.0951, 0.8607, 1.5576])
    y = jnp.round(jnp.exp(-x[:, None] * rates) @ heights, 4)  # Lanczos, to four digits
    begin = {"heights": jnp.array([1.2, 5.6, 6.5]) / units, "rates": jnp.array([0.3, 5.5, 7.6])}
    begin["rates"] = begin["rates"] * units
    mask = {"heights": True, "rates": False}
    fit = so.curve_fit(scaled, x, y, begin, separable=mask)
    full = so.curve_fit(scaled, x, y, begin)
    assert_same_fit(fit, full, rtol=1e-3)
    assert int(fit.solution.steps) < int(full.solution.steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma", "absolute"),
    [(None, False), (SIGMA, True), (CORRELATED, False)],
    ids=["none", "errors", "covariance"],
)
def test_every_weighting_gives_the_full_fits_answer_and_covariance(sigma, absolute, x64):
    options = {"sigma": sigma, "absolute_sigma": absolute, "tol": 1e-10}
    fit = so.curve_fit(model, X, Y, start(), separable=MASK, **options)
    assert_same_fit(fit, so.curve_fit(model, X, Y, start(), **options), rtol=1e-6)


@pytest.mark.slow
def test_success_is_a_stationary_point_of_the_full_problem(x64):
    fit = fit_osborne([0.1, 0.001])
    assert bool(fit.solution.success)
    residual = lambda p: exponentials(p, jnp.asarray(TIMES)) - OSBORNE_1
    columns = np.concatenate(
        [np.reshape(j, (33, -1)) for j in jax.tree.leaves(so.jacobian(residual, fit.params))], 1
    )
    r = residual(fit.params)
    cosines = columns.T @ r / (np.linalg.norm(columns, axis=0) * np.linalg.norm(r))
    assert np.abs(cosines).max() < 1e-6
    lost = np.linalg.norm(OSBORNE_1) / np.linalg.norm(r)  # where residuals cancel
    assert_close(fit.solution.value, 0.5 * np.sum(r**2), lost)


@pytest.mark.slow
def test_the_search_goes_over_the_other_parameters_alone(x64):
    fit = so.curve_fit(model, X, Y, start(), separable=MASK)
    gap = optax.MaskedNode()
    assert fit.solution.params == {"a": gap, "b": fit.params["b"], "c": gap}


@pytest.mark.slow
def test_single_precision_finds_it_too():
    fit = fit_osborne([0.01, 0.03])
    assert bool(fit.solution.success) and fit.params["heights"].dtype == jnp.float32
    np.testing.assert_allclose(2 * fit.solution.value, OSBORNE_VALUE, rtol=1e-2)


@pytest.mark.slow
def test_another_method_may_search(x64):
    fit = so.curve_fit(model, X, Y, start(), so.dogleg(), separable=MASK)
    assert_same_fit(fit, so.curve_fit(model, X, Y, start(), so.dogleg()))


@pytest.mark.slow
def test_an_offset_that_depends_on_the_searched_parameters_is_kept(x64):
    offset = lambda p, x: p["a"] * jnp.exp(-p["b"] * x) + p["c"] + jnp.sin(p["b"] * x) + 2.0
    y = Y + np.sin(1.5 * X) + 2.0
    fit = so.curve_fit(offset, X, y, start(), separable=MASK, tol=1e-10)
    assert_same_fit(fit, so.curve_fit(offset, X, y, start(), tol=1e-10), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mask", [(True, False), lambda p: (True, {"b": False, "none": ()})])
def test_a_mask_may_be_a_prefix_or_a_function_and_parameters_any_tree(mask, x64):
    curve = lambda p, x: p[0]["a"][0] * jnp.exp(-p[1]["b"] * x) + p[0]["a"][1]
    begin = ({"a": jnp.array([1.0, 0.0])}, {"b": jnp.array(1.0), "none": ()})
    fit = so.curve_fit(curve, X, Y, begin, separable=mask, tol=1e-10)
    known = so.curve_fit(model, X, Y, start(), tol=1e-10)
    np.testing.assert_allclose(fit.params[0]["a"], [known.params["a"], known.params["c"]], 1e-6)
    np.testing.assert_allclose(fit.params[1]["b"], known.params["b"], 1e-6)


def test_with_nothing_to_search_the_answer_takes_no_step(x64):
    line = lambda p, x: p["a"] + p["c"] * x**2
    begin = {"a": jnp.array(0.0), "c": jnp.array(0.0)}
    fit = so.curve_fit(line, X, Y, begin, sigma=SIGMA, separable=True)
    design = np.stack([np.ones(25), X**2], axis=1) / SIGMA[:, None]
    expected = np.linalg.lstsq(design, Y / SIGMA, rcond=None)[0]
    assert int(fit.solution.steps) == 0
    assert_close([fit.params["a"], fit.params["c"]], expected, np.linalg.cond(design) ** 2)
    assert_same_fit(fit, so.curve_fit(line, X, Y, begin, sigma=SIGMA))


@pytest.mark.slow
def test_with_nothing_linear_it_is_the_ordinary_fit(x64):
    fit, full = (so.curve_fit(model, X, Y, start(), separable=s) for s in (False, None))
    assert int(fit.solution.steps) == int(full.solution.steps)
    assert fit.params == full.params


# ------------------------------------------------------------------ rank


@pytest.mark.slow
def test_rates_that_coincide_at_the_start_stay_finite_and_part_again(x64):
    fit = fit_osborne([0.01, 0.01], heights=[1.5, -1.0])
    assert bool(fit.solution.success)
    np.testing.assert_allclose(2 * fit.solution.value, OSBORNE_VALUE, rtol=1e-5)


@pytest.mark.slow
def test_what_the_data_leave_open_of_a_linear_leaf_stays_at_its_start(x64):
    open_model = lambda p, x: (p["a"] + p["d"]) * jnp.exp(-p["b"] * x) + p["c"]
    begin = start() | {"a": jnp.array(5.0), "d": jnp.array(4.0)}
    fit = so.curve_fit(open_model, X, Y, begin, separable=MASK | {"d": True})
    known = so.curve_fit(model, X, Y, start(), separable=MASK)
    assert bool(fit.solution.success)
    assert_close(fit.params["a"] - fit.params["d"], 1.0, norm=5)
    np.testing.assert_allclose(fit.params["a"] + fit.params["d"], known.params["a"], rtol=1e-6)
    determined = {k: bool(v) for k, v in fit.determined.items()}
    assert determined == {"a": False, "b": True, "c": True, "d": False}


@pytest.mark.slow
def test_a_model_without_a_number_is_a_failure_and_not_a_hang(x64):
    broken = lambda p, x: p["a"] * jnp.log(p["b"] - 2.0 + 0 * x) + p["c"]
    fit = so.curve_fit(broken, X, Y, start(), separable=MASK)
    assert int(fit.solution.status) == so.Status.NONFINITE


# ------------------------------------------------------------------ derivatives, jit and vmap


@pytest.mark.slow
def test_the_fit_is_differentiable_in_the_data_as_the_full_fit_is(x64):
    def fitted(data, separable):
        x, y = data
        fit = so.curve_fit(model, x, y, start(), sigma=SIGMA, separable=separable, tol=1e-12)
        return jnp.stack(jax.tree.leaves(fit.params))

    data = (jnp.asarray(X), jnp.asarray(Y))
    reverse = jax.jit(jax.jacrev(fitted), static_argnums=1)(data, None)
    separable = lambda data: fitted(data, MASK)
    for mode in (jax.jacrev, jax.jacfwd):
        ours = jax.jit(mode(separable))(data)
        for one, other in zip(ours, reverse, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)
    eps, fast = 1e-5, jax.jit(separable)
    for i in (0, 7, 24):
        for leaf, derivative in enumerate(reverse):
            moved = lambda s, i=i, leaf=leaf: tuple(
                d.at[i].add(s * eps) if j == leaf else d for j, d in enumerate(data)
            )
            difference = (fast(moved(1)) - fast(moved(-1))) / (2 * eps)
            np.testing.assert_allclose(derivative[:, i], difference, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_fits_of_many_data_sets_run_under_jit_and_vmap_with_derivatives(x64):
    def height(y):
        return so.curve_fit(model, X, y, start(), separable=MASK, tol=1e-12).params["a"]

    ys = jnp.stack([jnp.asarray(Y), 1.1 * jnp.asarray(Y) ** 2])
    both = jax.jit(jax.vmap(jax.value_and_grad(height)))
    values, slopes = both(ys)
    full = so.curve_fit(model, X, ys[1], start(), tol=1e-12)
    np.testing.assert_allclose(values[1], full.params["a"], rtol=1e-8)
    up, down = (both(ys.at[:, 3].add(s))[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose(slopes[:, 3], (up - down) / 2e-5, rtol=1e-5)
    fits = jax.vmap(lambda y: so.curve_fit(model, X, y, start(), separable=MASK, tol=1e-12))(ys)
    np.testing.assert_allclose(fits.covariance[1], full.covariance, rtol=1e-6)


# ------------------------------------------------------------------ claims and input


def bent(p, x):
    return p["a"] ** 2 * jnp.exp(-p["b"] * x) + p["c"]


@pytest.mark.parametrize("height", [0.0, 1.0])
def test_a_claim_that_is_not_true_is_refused(height, x64):
    begin = start() | {"a": jnp.array(height)}
    with pytest.raises(ValueError, match=r"affine in params\['a'\]"):
        so.curve_fit(bent, X, Y, begin, separable=MASK)
    product = lambda p, x: p["a"] * p["c"] * jnp.exp(-p["b"] * x)
    with pytest.raises(ValueError, match="affine in"):
        so.curve_fit(product, X, Y, begin, separable=MASK)


@pytest.mark.slow
def test_a_claim_that_fails_under_jit_or_in_the_fit_is_no_success(x64):
    fit = jax.jit(lambda y: so.curve_fit(bent, X, y, start(), separable=MASK))(jnp.asarray(Y))
    assert int(fit.solution.status) == so.Status.NOT_AFFINE and not bool(fit.solution.success)
    cut = lambda p, x: jnp.minimum(p["a"], 2.0) * jnp.exp(-p["b"] * x) + p["c"]  # the answer is 3
    fit = so.curve_fit(cut, X, Y, start(), separable=MASK)
    assert int(fit.solution.status) == so.Status.NOT_AFFINE and not bool(fit.solution.success)
    assert "affine" in fit.solution.message


@pytest.mark.slow
def test_bounds_hold_on_searched_parameters_and_are_refused_on_linear_ones(x64):
    free = dict.fromkeys("abc", jnp.inf)
    low, high = dict.fromkeys("abc", -jnp.inf), free | {"b": 1.2}
    begin = start()
    fit = so.curve_fit(model, X, Y, begin, bounds=(low, high), separable=MASK)
    full = so.curve_fit(model, X, Y, begin, bounds=(low, high))
    assert_same_fit(fit, full)
    assert float(fit.params["b"]) == 1.2
    for bounds in [(0.0, jnp.inf), (low, free | {"a": 9.0}), (-jnp.inf, 5.0)]:
        with pytest.raises(ValueError, match=r"bound of params\['a'\] must be -?inf"):
            so.curve_fit(model, X, Y, begin, bounds=bounds, separable=MASK)
    with pytest.raises(ValueError, match="pair"):
        so.curve_fit(model, X, Y, begin, bounds=1.0, separable=MASK)


def test_a_mask_that_does_not_fit_is_answered_in_a_sentence():
    for mask in [{"a": True}, {"a": True, "b": False, "c": {"deep": True}}, (True, False, True)]:
        with pytest.raises(ValueError, match="tree structure of params"):
            so.curve_fit(model, X, Y, start(), separable=mask)
    for flag in [1, "yes", jnp.array([True, False])]:
        with pytest.raises(ValueError, match=r"separable\['a'\] must be True or False"):
            so.curve_fit(model, X, Y, start(), separable=MASK | {"a": flag})
    with pytest.raises(ValueError, match="predictions shaped like y"):
        so.curve_fit(lambda p, x: p["a"] + p["c"], X, Y, start(), separable=MASK)
