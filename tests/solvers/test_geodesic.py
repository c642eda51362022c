"""The path that a step begins: residuals shrink along it as evenly as its order says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so
from secondorder.quadratic import Quadratic
from secondorder.solvers import geodesic, qr, sample_space
from secondorder.step import Path

pytestmark = pytest.mark.usefixtures("x64")
START = {"a": np.array([0.3, -0.2]), "b": np.array(0.4)}


def residual(p):
    """As many as parameters, so that undamped steps cancel what they solve for."""
    x, y, z = *p["a"], p["b"]
    r = jnp.stack([x + 0.3 * jnp.exp(y), y + 0.2 * jnp.sin(z + x), z - 0.2 * jnp.exp(x * y)])
    return r + jnp.array([0.2, -0.3, 0.4])


def step_of(solver, damping=0.0, objective=None, p=START):
    f = objective or so.sum_of_squares(residual)

    @jax.jit
    def step(p, damping):
        quadratic = Quadratic(jax.grad(f)(p), so.ggn(f, p), None)
        return solver.update(quadratic, solver.init(p), damping)[0]

    return step(jax.tree.map(jnp.asarray, p), jnp.asarray(damping))


def at(step, t):
    terms = (step.direction, *(step.candidates.terms if isinstance(step.candidates, Path) else ()))
    weights = np.cumprod([t / k for k in range(1, len(terms) + 1)])
    return jax.tree.map(lambda p, *xs: p + sum(map(np.multiply, weights, xs)), START, *terms)


@pytest.mark.quick(2)
@pytest.mark.parametrize("make", [qr, sample_space])
@pytest.mark.parametrize("order", [1, 3, 4])
def test_residuals_shrink_evenly_to_the_order_of_the_path(make, order):
    step = step_of(geodesic(make(), order))
    r = residual(START)
    off = lambda t: np.linalg.norm(residual(at(step, t)) - (1 - t) * r)
    np.testing.assert_allclose(np.log2(off(0.02) / off(0.01)), order + 1, atol=0.2)


def test_fewer_rows_than_parameters_are_followed_as_well():
    f = so.sum_of_squares(lambda p: residual(p)[:2])
    for solver in (geodesic(qr(), 3), geodesic(sample_space(), 3)):
        step = step_of(solver, 1e-12, f)
        off = lambda t, s=step: np.linalg.norm(
            residual(at(s, t))[:2] - (1 - t) * residual(START)[:2]
        )
        np.testing.assert_allclose(np.log2(off(0.02) / off(0.01)), 4, atol=0.3)


@pytest.mark.parametrize("make", [qr, sample_space])
def test_terms_that_are_no_numbers_bend_nothing(make):
    root = so.sum_of_squares(lambda p: jnp.stack([jnp.sqrt(jnp.abs(p[0])) + 1, p[0] - 5]))
    step = step_of(geodesic(make(), 4), 0.1, root, jnp.array([0.0]))
    assert all(np.all(np.asarray(x) == 0) for x in step.candidates.terms)


def test_a_step_that_nobody_searches_goes_to_the_end_of_its_path():
    f = so.sum_of_squares(residual)
    tx = so.scale_by_curvature(so.exact(so.ggn), geodesic(qr(), 3), so.trust.fixed(0.1))
    start = jax.tree.map(jnp.asarray, START)
    step = jax.jit(lambda p, state: tx.update(jax.grad(f)(p), state, p, value_fn=f))
    update, _ = step(start, tx.init(start))
    end = at(step_of(geodesic(qr(), 3), 0.1), 1.0)
    for found, p, expected in zip(*map(jax.tree.leaves, (update, START, end)), strict=True):
        assert_close(p + found, expected, 10, norm=1)
