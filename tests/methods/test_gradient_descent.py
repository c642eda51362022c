"""Gradient descent: no curvature, so its rate is the condition number's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tolerances import rounding

import secondorder as so


def test_the_step_is_the_negative_gradient_times_the_rate():
    tx, grad = so.gradient_descent(0.25), {"a": jnp.array([1.0, -2.0]), "b": jnp.array(4.0)}
    updates, _ = tx.update(grad, tx.init(grad), grad, value_fn=lambda p: p["b"])
    np.testing.assert_allclose(updates["a"], [-0.25, 0.5])
    np.testing.assert_allclose(updates["b"], -1.0)


def test_it_takes_the_steps_of_optax_sgd():
    f = lambda p: jnp.sum(jnp.cosh(p) * jnp.array([1.0, 3.0]))
    ours, theirs = so.gradient_descent(0.1), optax.sgd(0.1)
    p = q = jnp.array([1.0, -1.0])
    state, other = ours.init(p), theirs.init(q)
    for _ in range(5):
        updates, state = ours.update(jax.grad(f)(p), state, p, value_fn=f)
        expected, other = theirs.update(jax.grad(f)(q), other, q)
        p, q = p + updates, q + expected
    np.testing.assert_allclose(p, q, rtol=1e-6)


def test_with_the_best_fixed_rate_the_error_falls_as_the_condition_number_says(x64):
    curvatures = jnp.array([1.0, 9.0])  # κ = 9, so the factor is (9 − 1)/(9 + 1)
    f = lambda p: 0.5 * jnp.sum(curvatures * p**2)
    tx, p = so.gradient_descent(2 / (1 + 9)), jnp.array([1.0, 1.0])
    state = tx.init(p)
    for _ in range(10):
        updates, state = tx.update(jax.grad(f)(p), state, p, value_fn=f)
        p = p + updates
    np.testing.assert_allclose(jnp.abs(p), 0.8**10, rtol=rounding(10))  # each step rounds
