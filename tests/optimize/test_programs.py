"""Kept programs: one compilation for all calls that compute the same, and no array kept alive."""

import gc
import threading
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import conftest
import secondorder as so
from secondorder.optimize import _programs

X = np.linspace(0.0, 3.0, 12)
START = {"a": 1.0, "b": 1.0}


@pytest.fixture(autouse=True)
def _no_programs():
    _programs.clear()
    yield
    _programs.clear()


def curve(p, x):
    return p["a"] * jnp.exp(-p["b"] * x)


def data(k):
    return (2 + k) * np.exp(-(0.5 + 0.1 * k) * X)


def compiled(call):
    before = conftest.programs
    result = call()
    return result, conftest.programs - before


def rosenbrock(p, a, b):
    return jnp.sum(a * (p[1:] - p[:-1] ** 2) ** 2 + (b - p[:-1]) ** 2)


def test_a_fit_of_other_data_compiles_nothing(x64):
    first = so.curve_fit(curve, X, data(0), START)
    later, programs = compiled(lambda: so.curve_fit(curve, X, data(3), START))
    assert programs == 0 and bool(later.solution.success)
    for fit, k in ((first, 0), (later, 3)):
        np.testing.assert_allclose([fit.params["a"], fit.params["b"]], [2 + k, 0.5 + 0.1 * k])


def test_arguments_are_data_and_the_solution_is_that_of_the_closure(x64):
    solve = lambda a, b: so.minimize(rosenbrock, jnp.array([-1.2, 1.0]), args=(a, b))
    solve(np.array([100.0]), np.ones(1))
    found, programs = compiled(lambda: solve(np.array([10.0]), np.array([2.0])))
    assert programs == 0
    np.testing.assert_allclose(found.params, [2.0, 4.0], rtol=1e-6)
    residual = lambda p, y: curve(p, X) - y
    ours = so.least_squares(residual, START, args=(data(1),))
    other = so.least_squares(lambda p: residual(p, data(1)), START)
    assert_close(ours.params["b"], other.params["b"], 1e3)


def test_a_lambda_made_anew_runs_the_program_of_the_first(x64):
    y = jnp.asarray(data(0))
    call = lambda: so.least_squares(lambda p: curve(p, X) - y, START)
    call()
    assert compiled(call)[1] == 0


@pytest.mark.slow
def test_another_array_in_the_closure_is_another_function(x64):
    values = {"y": jnp.asarray(data(0))}
    residual = lambda p: curve(p, X) - values["y"]
    first = so.least_squares(residual, START)
    values["y"] = jnp.asarray(data(2))
    second = so.least_squares(residual, START)
    np.testing.assert_allclose(first.params["a"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(second.params["a"], 4.0, rtol=1e-6)
    values["y"] = data(1)
    assert_close(so.least_squares(residual, START).params["a"], 3.0, 1e3)
    values["y"][:] = data(4)  # in place
    assert_close(so.least_squares(residual, START).params["a"], 6.0, 1e3)


def test_bounds_and_starts_are_data_and_settings_are_not(x64):
    f = lambda p: jnp.sum((p - 2.0) ** 4)
    call = lambda start, high, **kind: so.minimize(f, start, bounds=(-5.0, high), **kind)
    call(np.zeros(2), 1.0)
    found, programs = compiled(lambda: call(np.full(2, 0.5), 1.5))
    assert programs == 0
    np.testing.assert_allclose(found.params, 1.5)
    assert call(jnp.zeros(2), 3.0, max_steps=1).status == so.Status.MAX_STEPS
    with pytest.raises(ValueError, match="bounds cross"):
        call(jnp.zeros(2), -6.0)


def test_precision_and_other_settings_of_jax_have_programs_of_their_own():
    f = lambda p: jnp.sum((p - 2.0) ** 2)
    for on in (False, True, False):
        with jax.enable_x64(on):
            found = so.minimize(f, np.zeros(2))
            assert found.params.dtype == (jnp.float64 if on else jnp.float32)


@pytest.mark.slow
def test_a_solve_goes_on_from_a_solution_and_returns_auxiliary_output(x64):
    f = lambda p, c: (jnp.sum(jnp.cosh(p - c)), {"p": p, "text": "kept"})
    some = so.minimize(f, jnp.zeros(2), args=(3.0,), has_aux=True, max_steps=2)
    rest = so.minimize(f, some, args=(3.0,), has_aux=True)
    whole = so.minimize(f, jnp.zeros(2), args=(3.0,), has_aux=True)
    assert_close(rest.params, whole.params)
    assert whole.aux["text"] == "kept" and some.status == so.Status.MAX_STEPS


def test_no_array_of_a_call_is_kept_alive():
    def solve(k):
        y = jnp.arange(1000.0) + k
        so.minimize(lambda p: jnp.sum((p - y[:2]) ** 2), jnp.zeros(2), max_steps=3)
        so.least_squares(lambda p, y: p - y[:2], jnp.zeros(2), args=(y,), max_steps=3)
        so.curve_fit(lambda p, x: p + 0 * x, y[:9], y[:9], jnp.zeros(()), max_steps=3)
        return weakref.ref(y)

    seen = [solve(k) for k in range(2)]
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
    assert not [a for a in jax.live_arrays() if a.size == 1000]


def test_programs_are_bounded_and_the_last_used_stay(monkeypatch):
    monkeypatch.setattr(_programs, "MOST", 2)
    solve = lambda n: so.minimize(lambda p: jnp.sum(p**2), jnp.ones(n), max_steps=1)
    for n in (1, 2, 1, 3):
        solve(n)
    assert len(_programs._programs) == 2
    assert compiled(lambda: solve(1))[1] == 0 and compiled(lambda: solve(2))[1] > 0


def test_a_function_that_is_compiled_again_and_again_gets_one_warning(monkeypatch):
    monkeypatch.setattr(_programs, "PATIENCE", 3)
    solve = lambda y: so.least_squares(lambda p: p - y, jnp.zeros(2), max_steps=2)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for k in range(_programs.PATIENCE + 1):
            solve(jnp.ones(2) + k)
    (only,) = [w for w in seen if w.category is so.RecompilationWarning]
    assert "args=(x, y)" in str(only.message) and "least_squares" in str(only.message)
    assert only.filename == __file__


@pytest.mark.slow
def test_a_function_without_a_key_and_an_objective_get_the_advice_that_serves_them(
    monkeypatch,
):
    monkeypatch.setattr(_programs, "PATIENCE", 2)
    random = np.random.default_rng(0)
    unseen = lambda p: p - random.bit_generator.__class__.__name__.count("x")
    made = lambda y: so.compose(so.squared_error(y), lambda p: p)
    calls = {
        "args=": lambda k: so.least_squares(unseen, jnp.zeros(2), max_steps=2),
        "jitted": lambda k: so.minimize(made(jnp.ones(2) + k), jnp.zeros(2), max_steps=2),
    }
    for advice, call in calls.items():
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for k in range(_programs.PATIENCE):
                call(k)
        (only,) = [w for w in seen if w.category is so.RecompilationWarning]
        assert advice in str(only.message) and len(str(only.message)) < 350


@pytest.mark.quick(2)
@pytest.mark.parametrize("kind", ["jit", "vmap", "grad", "scan"])
def test_within_a_transformation_nothing_is_kept(kind, x64):
    minimum = lambda c: so.minimize(lambda p: jnp.sum((p - c) ** 2), jnp.zeros(2)).params
    c = jnp.array([1.0, 2.0])
    if kind == "jit":
        np.testing.assert_allclose(jax.jit(minimum)(c), c)
    elif kind == "vmap":
        np.testing.assert_allclose(jax.vmap(minimum)(jnp.stack([c, 2 * c])), [c, 2 * c])
    elif kind == "grad":
        assert_close(jax.jacobian(minimum)(c), np.eye(2), 1e4)
    else:
        _, found = jax.lax.scan(lambda carry, c: (carry, minimum(c)), 0, jnp.stack([c, 2 * c]))
        np.testing.assert_allclose(found, [c, 2 * c])
    assert not _programs._programs


@pytest.mark.slow
def test_gradients_with_respect_to_arguments_are_those_of_the_closure(x64):
    f = lambda p, c: jnp.sum((p - c) ** 2 + 0.1 * p**4)
    by_args = lambda c: so.minimize(f, jnp.zeros(2), args=(c,)).params.sum()
    closed = lambda c: so.minimize(lambda p: f(p, c), jnp.zeros(2)).params.sum()
    c = jnp.array([1.0, 2.0])
    assert_close(jax.grad(by_args)(c), jax.grad(closed)(c), 1e3)


@pytest.mark.slow
def test_a_model_that_calls_numpy_on_its_data_is_fitted_as_before(x64):
    model = lambda p, x: p["a"] * jnp.exp(-p["b"] * np.sort(np.asarray(x)))
    fit = so.curve_fit(model, X, data(0), START)
    np.testing.assert_allclose(fit.params["a"], 2.0, rtol=1e-6)


def test_two_threads_solve_side_by_side():
    found = {}

    def work(k):
        for j in range(3):
            found[k, j] = so.curve_fit(curve, X, data(k + j), START).params["a"]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (k, j), a in found.items():
        np.testing.assert_allclose(a, 2 + k + j, rtol=1e-3)  # in float32


@pytest.mark.parametrize("args", [5.0, [1.0]])
def test_arguments_that_are_no_tuple_get_a_sentence(args):
    with pytest.raises(TypeError, match="needs args to be a tuple"):
        so.minimize(lambda p, a: p, jnp.zeros(()), args=args)


def test_arguments_beside_an_objective_get_a_sentence():
    f = so.sum_of_squares(lambda p: p)
    with pytest.raises(TypeError, match="args beside an objective"):
        so.minimize(f, jnp.zeros(2), args=(1.0,))
