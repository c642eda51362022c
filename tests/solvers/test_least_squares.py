"""What the row solvers share: parameters that the start does not show, and what may be claimed."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from cases import with_slow

import secondorder as so

METHODS = [so.levenberg_marquardt, so.gauss_newton, so.dogleg, so.hybrid_newton]
T = np.linspace(0.0, 5.0, 40)


def ellipse(p, t):
    """The radius of an ellipse: of a circle, the angle is not seen but for rounding."""
    a, b, angle = p
    return a * b / jnp.sqrt((b * jnp.cos(t - angle)) ** 2 + (a * jnp.sin(t - angle)) ** 2)


def decays(p, t):
    return p[0] * jnp.exp(-p[1] * t) + p[2] * jnp.exp(-p[3] * t)


def spot(p, t):
    """A Gaussian on a grid of 12 x 12: of a round one, the angle is not seen."""
    centre = (jnp.arange(12) + 0.5) / 12
    x, y = centre[:, None] - p[1], centre[None, :] - p[2]
    u, v = jnp.cos(p[5]) * x + jnp.sin(p[5]) * y, jnp.cos(p[5]) * y - jnp.sin(p[5]) * x
    return (p[0] * jnp.exp(-0.5 * ((u / p[3]) ** 2 + (v / p[4]) ** 2)) + p[6]).ravel()


HIDDEN = {
    "an angle": (ellipse, [1.0, 1.0, 0.5], [1.6, 0.8, 0.9], 0.01),
    "a rate": (decays, [1.0, 0.5, 1e-17, 2.0], [2.0, 0.4, 1.5, 3.0], 0.01),
    "a round spot": (
        spot, [3.0, 0.5, 0.5, 0.15, 0.15, 0.5, 0.5], [5.0, 0.45, 0.55, 0.1, 0.2, 0.4, 1.0], 0.05
    ),
}  # fmt: skip


QUICK = list(zip(HIDDEN, METHODS, strict=False))


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("name", "method"),
    with_slow(itertools.product(HIDDEN, METHODS), lambda *case: case in QUICK),
)
def test_a_parameter_that_the_start_does_not_show_is_found(name, method, x64):
    model, start, truth, noise = HIDDEN[name]
    clean = model(jnp.array(truth), T)
    y = clean + noise * np.random.default_rng(100).normal(size=clean.shape)
    residual = lambda p: model(p, T) - y
    solution = jax.jit(lambda p: so.least_squares(residual, p, method()))(jnp.array(start))
    best = scipy.optimize.least_squares(jax.jit(residual), truth, jac=jax.jit(jax.jacfwd(residual)))
    assert bool(solution.success)
    np.testing.assert_allclose(solution.value, best.cost, rtol=1e-6)
    assert np.max(np.abs(solution.params)) < 1e4


# NIST's Statistical Reference Datasets, from the farther of two starts.
BOX_BOD = np.array([[1.0, 109], [2, 149], [3, 149], [5, 191], [7, 213], [10, 224]])
OSBORNE = np.array([
    0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718, 0.685,
    0.658, 0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467, 0.457, 0.448,
    0.438, 0.431, 0.424, 0.420, 0.414, 0.411, 0.406,
])  # fmt: skip


def box_bod(p):
    return p[0] * (1 - jnp.exp(-p[1] * BOX_BOD[:, 0])) - BOX_BOD[:, 1]


def osborne(p):
    t = 10.0 * np.arange(33)
    return p[0] + p[1] * jnp.exp(-t * p[3]) + p[2] * jnp.exp(-t * p[4]) - OSBORNE


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("residual", "start", "squares"),
    [
        (box_bod, [1.0, 1.0], 1.1680088766e03),
        (osborne, [50.0, 150.0, -100.0, 1.0, 2.0], 5.4648946975e-05),
    ],
    ids=["BoxBOD", "MGH17"],
)
def test_the_first_region_keeps_off_a_flat_tail(residual, start, squares, x64):
    solution = so.least_squares(residual, jnp.array(start))
    assert bool(solution.success)
    np.testing.assert_allclose(2 * solution.value, squares, rtol=1e-8)


@pytest.mark.slow
def test_a_parameter_that_ran_off_to_where_nothing_depends_on_it_is_no_optimum(x64):
    residual = lambda p: jnp.stack([p[0] - 1, p[0] + 1, p[0] + jnp.exp(-p[1])])
    objective, method = so.sum_of_squares(residual), so.levenberg_marquardt()
    far = jnp.array([0.0, 1e4])

    def lost(state):
        value, grad = jax.value_and_grad(objective)(far)
        update = {"value": value, "grad": grad, "value_fn": objective}
        return so.diagnostics(method.update(grad, state, far, **update)[1])["lost"]

    fresh: Any = method.init(far)
    assert not lost(fresh)  # a parameter that never mattered
    seen = fresh.solver._replace(norms=jnp.ones(2))
    assert lost(fresh._replace(solver=seen))


def test_a_perfect_fit_by_the_other_parameters_is_converged(x64):
    x = jnp.arange(8.0)
    curve = lambda p: p[0] * jnp.exp(-p[1] * x) + p[2] - 0.7
    solution = so.least_squares(curve, jnp.array([1.0, 1.0, 0.0]))
    assert solution.success and solution.value < 1e-8, solution.message


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), ({"a": -1.0}, {"a": 1.0})], ids=["all", "one"])
def test_a_parameter_on_its_bound_is_not_lost(bounds, x64):
    """Its column is left out of the model, and that of another parameter stays."""
    residual = lambda p: jnp.stack([p["a"] - 3.0, p["b"] - 4.0])
    start = {"a": 0.5, "b": 0.5}
    solution = so.least_squares(residual, start, so.levenberg_marquardt(), bounds=bounds)
    assert solution.success, solution.message
    assert solution.params["a"] == 1.0


@pytest.mark.slow
def test_a_parameter_of_1e15_excuses_no_gradient(x64):
    residual = lambda p: jnp.stack([jnp.cos(p[0]) + p[1], p[1] - 1, jnp.sin(p[0]) + 2 * p[1]])
    objective, method = so.sum_of_squares(residual), so.levenberg_marquardt()
    near, off = jnp.array([1.0, 1.0]), jnp.array([1e15, 1.0])

    def step(state, p):
        value, grad = jax.value_and_grad(objective)(p)
        return method.update(grad, state, p, value=value, grad=grad, value_fn=objective)[1]

    last = so.diagnostics(step(step(method.init(near), near), off))
    assert last["optimality"] > 1e-2
