"""Hessian-free: Gauss-Newton products, a warm start, and Martens' damping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import secondorder as so

X = jnp.linspace(-1.0, 1.0, 20)
TARGET = jnp.sin(3 * X)


def network(p):
    hidden = jnp.tanh(X[:, None] * p["w"] + p["b"])
    return hidden @ p["v"]


OBJECTIVE = so.compose(so.squared_error(TARGET), network)


def start():
    w, v = jax.random.normal(jax.random.key(0), (2, 6))
    return {"b": jnp.linspace(-1, 1, 6), "v": v, "w": w}


def run(tx, count):
    """Values and diagnostics of ``count`` updates, and the last state."""

    @jax.jit
    def step(p, state):
        value, grad = jax.value_and_grad(OBJECTIVE)(p)
        updates, state = tx.update(grad, state, p, value=value, grad=grad, value_fn=OBJECTIVE)
        return jax.tree.map(jnp.add, p, updates), state, value, so.diagnostics(state)

    p, values, reports = start(), [], []
    state = tx.init(p)
    for _ in range(count):
        p, state, value, report = step(p, state)
        values.append(float(value))
        reports.append({key: x.item() for key, x in report.items()})
    return values, reports, state


def test_it_fits_a_small_network_that_gradient_descent_does_not():
    values, _, _ = run(so.hessian_free(), 40)
    slow, _, _ = run(so.gradient_descent(), 40)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.1 * slow[-1]


def test_the_damping_follows_martens_rule():
    _, reports, _ = run(so.hessian_free(1e-6), 20)
    damping, seen = 1e-6, set()
    for report in reports:
        if not report["accepted"]:
            factor = 4.0
        else:
            factor = 2 / 3 if report["gain"] > 0.75 else 1.5 if report["gain"] < 0.25 else 1.0
        np.testing.assert_allclose(report["scale"], factor * damping, rtol=1e-5)
        damping = report["scale"]
        seen.add(factor)
    assert seen >= {2 / 3, 4.0}


def test_the_warm_start_is_the_last_accepted_step():
    tx = so.hessian_free(warm_start=0.9)
    p, state = start(), tx.init(start())
    grad = jax.grad(OBJECTIVE)(p)
    updates, state = jax.jit(lambda s: tx.update(grad, s, p, value_fn=OBJECTIVE))(state)
    for kept, step in zip(jax.tree.leaves(state.solver), jax.tree.leaves(updates), strict=True):
        np.testing.assert_allclose(kept, step, rtol=1e-6)


def test_without_a_warm_start_no_step_is_kept():
    assert jax.tree.leaves(so.hessian_free(warm_start=0.0).init(start()).solver) == []


@pytest.mark.parametrize("limit", [1, 5])
def test_the_product_limit_holds(limit):
    _, reports, _ = run(so.hessian_free(1e-3, max_cg_steps=limit, warm_start=0.0), 4)
    assert {report["iterations"] for report in reports} == {limit}
