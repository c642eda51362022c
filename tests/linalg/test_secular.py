"""The secular equation, against its own optimality conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

from secondorder.linalg import _secular as secular

RNG = np.random.default_rng(0)
WITHIN_RADIUS = jax.jit(secular.within_radius, static_argnames="semidefinite")
CUBIC = jax.jit(secular.cubically_regularised)


def cases(count=60, n=5):
    """Spectra of every sign and size; some without a part of the gradient in the lowest axis."""
    for trial in range(count):
        w = np.sort(RNG.normal(size=n) * 10 ** RNG.uniform(-3, 3))
        w = np.sort(np.abs(w)) if trial % 7 == 0 else w
        c = RNG.normal(size=n) * 10 ** RNG.uniform(-6, 6)
        c[0] = 0.0 if trial % 5 == 0 else c[0]
        yield w, c, 10 ** RNG.uniform(-3, 3)


def stationarity(w, c, found):
    """``(w + λ) z = −c``, relative to what its terms are made of."""
    z, lam = np.asarray(found.z), float(found.multiplier)
    error = np.abs((w + lam) * z + c)
    return np.max(error / (np.abs(c) + (np.abs(w) + lam) * np.abs(z) + 1e-300)), z, lam


def test_the_step_in_a_region_meets_the_conditions_of_a_global_minimum(x64):
    hard = 0
    for w, c, delta in cases():
        found = WITHIN_RADIUS(w, c, delta)
        error, z, lam = stationarity(w, c, found)
        length = np.linalg.norm(z)
        assert error < 1e-7
        assert lam >= 0 and w[0] + lam >= -1e-9 * np.abs(w).max()
        on_boundary = abs(length - delta) <= 1e-7 * delta
        assert on_boundary or (lam == 0 and length <= delta)
        hard += bool(found.hard)
    assert hard > 0  # the hard case is among them


def test_the_cubic_step_meets_the_conditions_of_a_global_minimum(x64):
    hard = 0
    for w, c, sigma in cases():
        found = CUBIC(w, c, sigma)
        error, z, lam = stationarity(w, c, found)
        assert error < 1e-7
        np.testing.assert_allclose(lam, sigma * np.linalg.norm(z), rtol=1e-6)
        assert w[0] + lam >= -1e-9 * np.abs(w).max()
        hard += bool(found.hard)
    assert hard > 0


def test_a_saddle_without_a_slope_is_left_along_its_lowest_axis_by_a_step_of_one(x64):
    w, c = jnp.array([-2.0, 1.0, 3.0]), jnp.zeros(3)
    for found in (WITHIN_RADIUS(w, c, jnp.inf), CUBIC(w, c, 0.0)):
        assert_close(np.abs(found.z), [1.0, 0.0, 0.0])
        np.testing.assert_allclose(found.multiplier, 2.0)
        assert found.hard
    at_a_minimum = WITHIN_RADIUS(jnp.abs(w), c, jnp.inf)
    np.testing.assert_array_equal(at_a_minimum.z, 0)


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1.0, 1e12])
def test_a_tiny_gradient_in_float32_is_solved_like_one_of_size_one(factor):
    w, c = jnp.array([-1.0, 2.0, 5.0]), jnp.array([0.3, -1.0, 2.0])
    plain = WITHIN_RADIUS(w, c, jnp.float32(0.5))
    scaled = WITHIN_RADIUS(w, factor * c, jnp.float32(0.5 * factor))
    np.testing.assert_allclose(scaled.z / factor, plain.z, rtol=1e-4)


def test_an_infinite_region_is_newtons_step_or_leaves_a_saddle(x64):
    w, c = jnp.array([1.0, 4.0]), jnp.array([2.0, 2.0])
    found = WITHIN_RADIUS(w, c, jnp.inf)
    np.testing.assert_allclose(found.z, [-2.0, -0.5])
    assert bool(found.interior)
    saddle = WITHIN_RADIUS(jnp.array([-1.0, 1.0]), jnp.array([0.0, 1.0]), jnp.inf)
    assert abs(float(saddle.z[0])) > 0.1 and bool(saddle.hard)


def test_a_semidefinite_model_takes_the_shortest_minimiser(x64):
    w, c = jnp.array([0.0, 2.0]), jnp.array([0.0, 2.0])
    found = WITHIN_RADIUS(w, c, 10.0, semidefinite=True)
    np.testing.assert_allclose(found.z, [0.0, -1.0])
    assert bool(found.interior)
    cut = WITHIN_RADIUS(w, c, 0.25, semidefinite=True)
    assert_close(cut.z, [0.0, -0.25])
