"""Operators that know their inverse: the identity and diagonals divide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding

import secondorder as so
from secondorder.operators import Diagonal, Identity
from secondorder.solvers import Stop, apply_inverse

SOLVER = apply_inverse()


def solve(curvature, grad, damping=0.0):
    step, _ = SOLVER.update(so.Quadratic(grad, curvature), (), jnp.asarray(damping))
    return step


def test_the_identity_gives_the_negative_gradient():
    grad = {"a": jnp.array([1.0, -2.0]), "b": (jnp.array(0.5), None)}
    step = solve(Identity(), grad)
    assert jax.tree.map(lambda d, g: bool(jnp.all(d == -g)), step.direction, grad) == {
        "a": True,
        "b": (True, None),
    }
    np.testing.assert_allclose(step.predicted, -0.5 * (1 + 4 + 0.25), rtol=1e-6)
    np.testing.assert_allclose(step.length, np.sqrt(5.25), rtol=1e-6)
    assert step.report.stopped == Stop.SOLVED


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_a_diagonal_divides(x64, damping):
    grad, entries = jnp.array([1.0, -2.0, 3.0]), jnp.array([1e-3, 1.0, 1e4])
    step = solve(Diagonal(entries), grad, damping)
    np.testing.assert_allclose(step.direction, -grad / (entries + damping), rtol=rounding())
    model = so.Quadratic(grad, Diagonal(entries))
    assert_close(step.predicted, model(step.direction))


def test_negative_entries_are_taken_in_magnitude():
    grad = jnp.array([1.0, -2.0, 3.0])
    step = solve(Diagonal(jnp.array([-1.0, 2.0, -4.0])), grad)
    np.testing.assert_allclose(step.direction, [-1.0, 1.0, -0.75])


@pytest.mark.parametrize("entries", [[0.0, 1.0, 4.0], [0.0, 0.0, 0.0], [1e-30, 1.0, 1e-20]])
def test_an_entry_of_zero_gives_a_finite_descent_direction(entries):
    grad = jnp.array([1.0, -2.0, 3.0])
    step = solve(Diagonal(jnp.array(entries)), grad)
    assert np.isfinite(step.direction).all() and step.direction @ grad < 0


@pytest.mark.parametrize("factor", [2.0**-80, 2.0**80])
def test_rescaling_the_objective_changes_nothing(factor):
    grad, entries = jnp.array([1.0, -2.0, 3.0]), jnp.array([0.0, 2.0, -4.0])
    step = solve(Diagonal(entries), grad)
    rescaled = solve(Diagonal(factor * entries), factor * grad)
    np.testing.assert_allclose(rescaled.direction, step.direction, rtol=1e-6)


def test_low_precision_entries_are_solved_in_float32():
    grad = jnp.array([1.0, -2.0])
    step = solve(Diagonal(jnp.array([3.0, 3.0], jnp.bfloat16)), grad)
    np.testing.assert_allclose(step.direction, -grad / 3, rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_gradient_that_is_not_finite_is_flagged(bad):
    for curvature in (Identity(), Diagonal(jnp.ones(2))):
        assert solve(curvature, jnp.array([1.0, bad])).report.stopped == Stop.NONFINITE


def test_a_curvature_without_an_inverse_is_refused_in_a_sentence():
    params = jnp.ones(2)
    hessian = so.hessian(lambda p: jnp.sum(p**4), params)
    with pytest.raises(TypeError, match=r"needs the inverse.*Function has none.*or cg\(\)"):
        solve(hessian, params)
