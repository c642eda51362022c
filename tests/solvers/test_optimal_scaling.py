"""Length and momentum from the exact quadratic model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close

import secondorder as so
from secondorder.operators._base import Preconditioned
from secondorder.operators._dense import unravel
from secondorder.solvers import Stop

pytestmark = pytest.mark.usefixtures("x64")
LIKE = {"a": np.zeros(3), "b": np.zeros((2, 2))}
RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(9, 7))
B = ROOT.T @ ROOT


def vector(seed):
    return unravel(jnp.asarray(np.random.default_rng(seed).normal(size=7)), LIKE)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def curvature(inverse=1.0):
    exact = so.ggn(
        so.sum_of_squares(lambda p: ROOT @ jnp.concatenate([p["a"], p["b"].ravel()])), LIKE
    )
    return Preconditioned(exact, inverse * so.operators.Identity())


class Direction(so.Operator):
    """An approximate inverse that sends every gradient to one direction."""

    def __init__(self, d):
        self.d = d

    def solve(self, v, damping):
        return jax.tree.map(jnp.negative, self.d)


def solved(grad, proposed, last, damping, base=None):
    solver = so.solvers.optimal_scaling(so.solvers.apply_inverse())
    _, inner = solver.init(LIKE)

    @jax.jit
    def update(grad, proposed, last, damping):
        op = Preconditioned(curvature().base if base is None else base, Direction(proposed))
        return solver.update(so.Quadratic(grad, op), (last, inner), damping)

    return update(grad, proposed, last, float(damping))


def test_the_step_is_the_minimum_over_both_directions():
    grad, d, last, damping = vector(1), vector(2), vector(3), 0.7
    step, (kept, _) = solved(grad, d, last, damping)
    basis = np.stack([flat(d), flat(last)], axis=1)
    c = basis.T @ (B + damping * np.eye(7)) @ basis
    expected = -basis @ np.linalg.solve(c, basis.T @ flat(grad))
    assert_close(flat(step.direction), expected, np.linalg.cond(c))
    model = flat(grad) @ expected + 0.5 * expected @ B @ expected
    assert_close(step.predicted, model, np.linalg.cond(c))
    assert step.predicted < 0
    np.testing.assert_array_equal(flat(kept), flat(step.direction))


@pytest.mark.parametrize("last", [vector(2), jax.tree.map(jnp.zeros_like, vector(2))])
def test_parallel_directions_and_a_first_step_leave_the_length_alone(last):
    grad, d = vector(1), vector(2)
    step, _ = solved(grad, d, last, 0.0)
    length = -(flat(grad) @ flat(d)) / (flat(d) @ B @ flat(d))
    np.testing.assert_allclose(flat(step.direction), length * flat(d), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-140, 1e140])
def test_the_unit_of_the_proposed_step_does_not_matter(scale):
    grad, last = vector(1), vector(3)
    expected, _ = solved(grad, vector(2), last, 0.1)
    found, _ = solved(grad, so.tree.scale(scale, vector(2)), last, 0.1)
    assert_close(flat(found.direction), flat(expected.direction), np.linalg.cond(B))


def test_half_products_are_those_of_the_whole():
    exact = curvature().base
    u, v = vector(1), vector(2)
    pairs = [[flat(x) @ B @ flat(y) for y in (u, v)] for x in (u, v)]
    assert_close(exact.gram(u, v), pairs)
    assert_close(so.Operator.gram(exact, u, v), pairs)


def test_a_direction_of_nan_is_reported():
    step, _ = solved(vector(1), jax.tree.map(lambda x: x * jnp.nan, vector(2)), vector(3), 0.1)
    assert step.report.stopped == Stop.NONFINITE


def test_without_curvature_the_step_descends():
    flat_model = so.operators.Scaled(0.0, so.operators.Identity())
    step, _ = solved(vector(1), so.tree.negative(vector(1)), vector(3), 0.0, base=flat_model)
    assert flat(step.direction) @ flat(vector(1)) < 0
