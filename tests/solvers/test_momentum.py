"""Solvers around solvers: momentum, grafting; and the minimum of a diagonal model in a box."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import rounding

import secondorder as so
from secondorder.operators import PositiveDiagonal
from secondorder.solvers import Stop, apply_inverse, box_constrained, grafted, momentum

ENTRIES = {"a": jnp.array([2.0, 0.5, 4.0]), "b": jnp.array(1.0, jnp.float32)}
GRADS = [
    {"a": jnp.array([1.0, -3.0, 0.1]), "b": jnp.array(0.5, jnp.float32)},
    {"a": jnp.array([-1.0, 2.0, 0.4]), "b": jnp.array(-2.0, jnp.float32)},
]
ONE = jnp.float32(1.0)


def run(solver, scale=ONE, entries=ENTRIES):
    quadratic = lambda g: so.Quadratic(g, PositiveDiagonal(entries))
    update = jax.jit(lambda g, state: solver.update(quadratic(g), state, scale))
    state, steps = solver.init(ENTRIES), []
    for g in GRADS:
        step, state = update(g, state)
        steps.append(step)
    return steps


@pytest.mark.parametrize("debias", [True, False])
def test_the_solver_sees_the_mean_of_the_gradients(debias):
    steps = run(momentum(apply_inverse(), 0.9, debias), jnp.float32(0.0))
    weights = np.array([0.09, 0.1]) / (0.19 if debias else 1.0)
    mean = weights[0] * GRADS[0]["a"] + weights[1] * GRADS[1]["a"]
    tolerance = rounding(norm=3, dtype="float32")
    np.testing.assert_allclose(steps[1].direction["a"], -mean / ENTRIES["a"], atol=tolerance)


def test_without_decay_an_average_is_the_solver_itself():
    plain, wrapped = run(apply_inverse()), run(momentum(apply_inverse(), 0.0))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(wrapped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_clipped_step_is_the_minimum_in_the_box():
    grid = jnp.linspace(-1, 1, 20_001)
    step = run(box_constrained())[0]
    for g, b, d in zip(GRADS[0]["a"], ENTRIES["a"], step.direction["a"], strict=True):
        best = grid[jnp.argmin(g * grid + 0.5 * b * grid**2)]
        np.testing.assert_allclose(d, best, atol=1e-3)
    assert step.report.stopped == Stop.BOUNDARY and step.length == 1
    assert step.predicted < 0
    inside = run(box_constrained(), jnp.float32(100.0))[0]
    assert inside.report.stopped == Stop.SOLVED


def test_a_clipped_step_needs_an_inverse():
    f = lambda p: jnp.sum(p["a"] ** 2) + p["b"] ** 2
    with pytest.raises(TypeError, match=r"needs the inverse.*Function has none"):
        box_constrained().update(so.Quadratic(GRADS[0], so.hessian(f, ENTRIES)), (), ONE)


def test_a_grafted_step_has_one_direction_and_the_other_length_leaf_by_leaf():
    own, joined = run(apply_inverse()), run(grafted(apply_inverse(), optax.identity(), 0.0))
    for name in ("a", "b"):
        p, d, g = own[0].direction[name], joined[0].direction[name], GRADS[0][name]
        np.testing.assert_allclose(jnp.linalg.norm(d), jnp.linalg.norm(g), rtol=1e-5)
        np.testing.assert_allclose(
            d / jnp.linalg.norm(d), p / jnp.linalg.norm(p), rtol=1e-5, atol=1e-6
        )


def test_a_step_of_nothing_stays_one_when_it_is_grafted():
    nothing = jax.tree.map(jnp.zeros_like, GRADS[0])
    solver = grafted(apply_inverse(), optax.identity(), 0.5)
    quadratic = so.Quadratic(nothing, PositiveDiagonal(ENTRIES))
    step, _ = solver.update(quadratic, solver.init(ENTRIES), ONE)
    assert all(np.all(d == 0) for d in jax.tree.leaves(step.direction))
