"""Warnings that advise: where they hold and nowhere else, once, with cause, cure and page."""

import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so
from secondorder import notices
from secondorder.optimize import _programs, _solution

DOCS = Path(__file__).parents[1] / "docs"
X = np.ones((5, 3), np.float32)


def advised(call):
    """The advice of a call, as texts with the files that it names."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    assert all(w.category is so.AdviceWarning and w.filename == __file__ for w in found)
    return [str(w.message) for w in found]


def test_a_kind_of_advice_is_given_once_and_names_a_page():
    give = lambda: notices.advise("a", "Because.", "precision")
    assert advised(give) == ["Because. See explain/precision.html of the documentation."]
    assert advised(give) == []
    notices._given.clear()
    with pytest.raises(so.AdviceWarning):  # as errors, like here
        give()


def test_every_page_that_the_library_names_is_there():
    source = "\n".join(f.read_text() for f in Path(so.__file__).parent.rglob("*.py"))
    named = re.findall(r"page\(['\"](\w+)['\"]\)", source)
    named += re.findall(r"^        *\"(\w+)\",\n +\)$", source, re.MULTILINE)
    assert {"trust", "faq", "compiling", "statuses", "precision"} <= set(named)
    for name in named:
        assert (DOCS / "explain" / f"{name}.md").exists(), name


def quadratic(p):
    return jnp.sum((p - 1.0) ** 2)


@pytest.mark.parametrize("tol, dtype, warns", [
    (1e-8, "float32", True), (1e-6, "float32", False), (None, "float32", False),
    (1e-12, "float64", False), (1e-6, "bfloat16", False),
])  # fmt: skip
def test_a_tolerance_below_the_precision_is_advised_against(tol, dtype, warns):
    with jax.enable_x64(dtype == "float64"):
        start = jnp.zeros(2, dtype)
        found = advised(lambda: so.minimize(quadratic, start, tol=tol, max_steps=2))
    assert len(found) == warns
    if warns:
        assert f"got tol={tol:g}, but {dtype} resolves" in found[0]
        assert "explain/precision.html" in found[0]


TIMES = 1.7e9 + np.arange(50.0)


@pytest.mark.quick(2)
@pytest.mark.parametrize("x, y, x64, warns", [
    (TIMES, np.ones(50), False, True), (np.ones(50), TIMES, False, True),
    (TIMES - TIMES.mean(), np.ones(50), False, False), (TIMES, np.ones(50), True, False),
    (jnp.arange(50.0), np.arange(50), False, False), (np.full(50, 1e9), np.ones(50), False, False),
    (np.array([np.nan] * 50), np.ones(50), False, False),
    ({"t": TIMES}, np.ones(50), False, True),
], ids=str)  # fmt: skip
def test_data_that_float32_would_round_away_are_advised_against(x, y, x64, warns):
    model = lambda p, x: p["a"] + 0 * jax.tree.leaves(x)[0]
    _programs.clear()  # data are looked at before a compilation
    with jax.enable_x64(x64):
        found = advised(lambda: so.curve_fit(model, x, y, {"a": 1.0}, max_steps=1))
    assert len(found) == warns
    if warns:
        assert "Subtract a constant from them" in found[0]


def network(p):
    return jnp.tanh(X @ p["w"] + p["b"]) * jnp.exp(p["scale"])


@pytest.mark.parametrize("method", [so.kfac, so.ekfac])
def test_leaves_outside_all_layers_are_named_where_they_are_many(method):
    few = {"w": jnp.ones((3, 40)), "b": jnp.zeros(40), "scale": jnp.zeros(())}
    many = few | {"scale": jnp.zeros(40)}
    objective = so.compose(so.squared_error(np.zeros((5, 40))), network)
    assert advised(lambda: method(example=objective).init(few)) == []
    opt = method(example=objective)
    (text,) = advised(lambda: opt.init(many))
    assert "no layer for 1 of 3 leaves, 20 % of the parameters; the first is ['scale']" in text
    assert "so.layer_table(objective, params)" in text and "explain/faq.html" in text
    assert advised(lambda: jax.jit(method(example=objective).init)(many)) == []  # once
    notices._given.clear()
    assert len(advised(lambda: jax.jit(method(example=objective).init)(many))) == 1


def after(opt, fn, steps, params, sign=1.0):
    """The state after some updates; with ``sign=-1`` by gradients of another function."""

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            value, grad = jax.value_and_grad(fn)(params)
            grad = optax.tree.scale(sign, grad)
            known = {"value": value, "grad": grad, "value_fn": fn}
            updates, state = opt.update(grad, state, params, **known)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, opt.init(params)), length=steps)[0][1]

    return run(params)


def test_a_run_that_goes_well_gets_no_advice():
    bowl = lambda p: jnp.sum(jnp.cosh(p - 1.0))
    for opt in (so.newton_cg(), so.gradient_descent(0.1), so.soap(0.1), so.bfgs()):
        assert so.advice(opt.init(jnp.zeros(2))) == ()
        assert so.advice(after(opt, bowl, 5, jnp.zeros(2))) == ()


@pytest.mark.quick(1)
@pytest.mark.parametrize("opt, steps, limit", [
    (so.newton_cg(), 150, "Δ has fallen"), (so.hessian_free(), 150, "λ (or σ) has risen"),
    (so.cubic_newton(), 150, "λ (or σ) has risen"), (so.newton_cg(), 30, None),
], ids=["radius", "damping", "cubic", "no limit yet"])  # fmt: skip
def test_rejections_and_a_scalar_at_its_limit_are_told(opt, steps, limit):
    fn = so.compose(so.squared_error(jnp.ones(2)), lambda p: p)
    state = after(opt, fn, steps, jnp.zeros(2), sign=-1.0)
    first, *others = so.advice(state)
    assert first.startswith(f"{steps} of {steps} updates were rejected")
    assert [limit in sentence for sentence in others] == [True] * (limit is not None)
    both = jax.tree.map(lambda x, y: jnp.stack([x, y]), state, opt.init(jnp.zeros(2)))
    assert so.advice(both)[0] == first


def test_what_is_not_finite_is_told():
    opt, start = so.newton_cg(), jnp.zeros(2)
    (text,) = so.advice(after(opt, lambda p: jnp.sum(jnp.sqrt(p - 1.0)), 1, start))
    assert "holds NaN or infinity, so there is no step" in text
    cliff = lambda p: jnp.where(p[0] > 0.1, jnp.nan, jnp.sum((p - 1.0) ** 2))
    (text,) = so.advice(after(opt, cliff, 1, start))
    assert "trial was NaN" in text


def test_an_inner_solver_far_from_its_solution_is_told():
    c = jnp.geomspace(1.0, 1e3, 60)
    fn = lambda p: jnp.sum(c * p**2 - p)
    for most, told in ((1, True), (200, False)):
        cg, fixed = so.solvers.cg(most), so.trust.fixed(1e-3)
        opt = so.scale_by_curvature(so.exact(so.hessian), cg, fixed)
        found = so.advice(after(opt, fn, 1, jnp.zeros(60)))
        assert ["ended at its limit of iterations" in text for text in found] == [True] * told


@pytest.mark.parametrize("refresh_every, refreshes", [
    (1, 60), (7, 9), (100, 1), (so.curvature.drift(1e9), 1),
])  # fmt: skip
def test_factors_that_are_never_refreshed_are_told(refresh_every, refreshes):
    opt = so.soap(1e-3, refresh_every=refresh_every)
    state = after(opt, lambda p: jnp.sum((p @ p.T - 1.0) ** 2), 60, 0.1 * jnp.eye(3))
    assert so.diagnostics(state)["refreshes"] == refreshes
    told = ["60 updates ago" in sentence for sentence in so.advice(state)]
    assert told == [True] * (refreshes == 1)


def test_advice_needs_values_of_a_state_of_the_library():
    with pytest.raises(TypeError, match="traced state. Call it outside of jit"):
        jax.jit(so.advice)(so.newton_cg().init(jnp.zeros(2)))
    with pytest.raises(ValueError, match="no state of this library"):
        so.advice(optax.adam(1e-3).init(jnp.zeros(2)))


def quartic(p):
    return jnp.sum((p - 1.0) ** 4)


def test_every_failure_has_a_cure():
    failures = set(so.Status) - {so.Status.RUNNING, so.Status.CONVERGED, so.Status.STOPPED}
    assert set(_solution.CURES) == failures


@pytest.mark.parametrize("status, word", [
    (so.Status.MAX_STEPS, "to go on"), (so.Status.NONFINITE, "log, sqrt"),
])  # fmt: skip
def test_the_message_of_a_failed_solve_has_its_cure(status, word):
    fn = quartic if status == so.Status.MAX_STEPS else lambda p: jnp.sum(jnp.sqrt(p - 1.0))
    solution = so.minimize(fn, jnp.zeros(2), "bfgs", max_steps=1, tol=1e-6)
    assert solution.status == status
    assert solution.message.startswith(status.sentence) and word in solution.message
    assert solution.message.endswith("See explain/statuses.html of the documentation.")
