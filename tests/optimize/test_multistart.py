"""Several starts: the lowest minimum is the fit, and each distinct one is counted once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so

X = np.linspace(0.0, 6.0, 50)


def wave(p, x):
    return p["a"] * jnp.sin(p["w"] * x)


Y = 1.5 * np.sin(2.2 * X) + 0.05 * np.cos(31 * X)
STARTS = np.array([0.4, 1.0, 1.8, 2.1, 2.5, 3.4])
START = {"a": 1.0, "w": 0.2}


@pytest.mark.quick(1)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_each_minimum_is_reported_once_the_lowest_first(dtype, x64):
    start, ws = jax.tree.map(dtype, START), STARTS.astype(dtype)
    x, y = X.astype(dtype), Y.astype(dtype)
    fit = so.curve_fit(wave, x, y, start, starts={"w": ws})
    alone = [so.curve_fit(wave, x, y, {"a": start["a"], "w": w}) for w in (start["w"], *ws)]
    done = [f for f in alone if bool(f.solution.success)]
    values = np.array([float(f.chi_square) for f in done])
    np.testing.assert_allclose(fit.chi_square, min(values), rtol=1e-5)
    np.testing.assert_allclose(fit.params["w"], 2.2, rtol=1e-2)
    groups = []  # by the frequency: its sign is the amplitude's
    for f in done:
        point = np.array([f.params["a"], f.params["w"]])
        near = [g for g in groups if np.allclose(g[0], point, rtol=1e-2, atol=1e-2)]
        near[0].append(point) if near else groups.append([point])
    minima = fit.minima
    assert int(jnp.sum(minima.count > 0)) == len(groups) > 1
    assert sorted(minima.count[minima.count > 0].tolist()) == sorted(map(len, groups))
    found = minima.chi_square[minima.count > 0]
    assert all(np.diff(found) >= 0) and minima.chi_square[0] == fit.chi_square
    assert all(np.isinf(minima.chi_square[len(groups) :]))
    assert f"7 starts, {len(groups)} distinct minima" in str(fit)
    assert minima.params["a"].shape == (7,)


@pytest.mark.slow
def test_a_valley_is_one_minimum_and_equal_peaks_are_two(x64):
    flat = lambda p, x: (p[0] + p[1]) * jnp.exp(-x)
    starts = jnp.array([[3.0, -1.0], [0.0, 9.0], [5.0, 5.0]])
    fit = so.curve_fit(flat, X, 2 * np.exp(-X) + 0.01 * np.cos(9 * X), jnp.ones(2), starts=starts)
    assert fit.minima.count.tolist() == [4, 0, 0, 0]
    peaks = lambda p, x: jnp.exp(-((x - p[0]) ** 2)) + jnp.exp(-((x - p[1]) ** 2))
    y = np.asarray(peaks(np.array([2.0, 4.5]), X)) + 0.01 * np.cos(9 * X)
    fit = so.curve_fit(peaks, X, y, jnp.array([1.9, 4.0]), starts=jnp.array([[4.1, 1.8]]))
    assert fit.minima.count.tolist() == [1, 1]
    assert_close(fit.minima.chi_square[1], fit.minima.chi_square[0], 1e4)


@pytest.mark.slow
def test_starts_go_with_fixed_linear_and_traced(x64):
    options = {"starts": {"w": STARTS[2:5]}}
    fixed = so.curve_fit(wave, X, Y, START, fixed={"a": 1.5}, **options)
    assert bool(fixed.solution.success) and np.all(fixed.minima.params["a"] == 1.5)
    linear = so.curve_fit(wave, X, Y, START, separable={"a": True, "w": False}, **options)
    np.testing.assert_allclose(linear.params["a"], 1.5, rtol=0.05)
    assert_close(fixed.params["w"], 2.2, 1e14)
    ys = jnp.stack([Y, 2 * Y])
    many = jax.jit(jax.vmap(lambda y: so.curve_fit(wave, X, y, START, **options)))(ys)
    np.testing.assert_allclose(many.params["a"][1], 2 * many.params["a"][0], rtol=1e-5)
    assert many.minima.count.shape == (2, 4)


@pytest.mark.parametrize(
    ("starts", "sentence"),
    [
        ({"q": np.ones(3)}, "starts names 'q'"),
        ({"a": np.ones(3), "w": np.ones(2)}, "one common leading axis"),
        ({"a": 1.0}, "one common leading axis"),
        ({"a": np.ones((3, 2))}, "one common leading axis"),
        (np.ones((3, 2)), "a tree like params"),
    ],
)
def test_wrong_starts_get_a_sentence(starts, sentence):
    with pytest.raises(ValueError, match=sentence):
        so.curve_fit(wave, X, Y, START, starts=starts)
