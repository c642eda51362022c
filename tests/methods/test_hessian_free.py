"""Hessian-free: Gauss-Newton products, a warm start, damping, and what preconditions them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, rounding

import secondorder as so
from secondorder import curvature, solvers
from secondorder.operators._dense import ravel, unravel

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


@pytest.mark.slow
def test_it_fits_a_small_network_that_gradient_descent_does_not():
    values, _, _ = run(so.hessian_free(), 40)
    slow, _, _ = run(so.gradient_descent(), 40)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.1 * slow[-1]


def test_the_damping_follows_the_gain_of_whole_steps_and_the_halvings_of_others():
    _, reports, _ = run(so.hessian_free(trust=1e-7, backtrack=0), 25)
    damping, grown, seen = 1e-7, 2, set()
    for report in reports:
        halved = -np.log2(report["fraction"])
        if not report["accepted"]:
            factor, grown = grown, 2 * grown
        else:
            eased = np.clip(1 - (2 * report["gain"] - 1) ** 3, 1 / 3, 2)
            factor, grown = (1.5**halved if halved else eased), 2
        np.testing.assert_allclose(report["scale"], factor * damping, rtol=1e-4)
        damping = report["scale"]
        seen.add("halved" if halved else "whole")
    assert seen == {"halved", "whole"}


def test_the_warm_start_is_the_last_accepted_step():
    tx = so.hessian_free(warm_start=0.9, backtrack=0)
    p, state = start(), tx.init(start())
    grad = jax.grad(OBJECTIVE)(p)
    updates, state = jax.jit(lambda s: tx.update(grad, s, p, value_fn=OBJECTIVE))(state)
    assert state.step.report.fraction == 1
    for kept, step in zip(jax.tree.leaves(state.solver), jax.tree.leaves(updates), strict=True):
        np.testing.assert_allclose(kept, step, rtol=1e-6)


def test_without_a_warm_start_no_step_is_kept():
    assert jax.tree.leaves(so.hessian_free(warm_start=0.0).init(start()).solver) == []


@pytest.mark.quick(1)
@pytest.mark.parametrize("limit", [1, 5])
def test_the_product_limit_holds(limit):
    _, reports, _ = run(so.hessian_free(trust=1e-3, max_cg_steps=limit, warm_start=0.0), 4)
    assert {report["iterations"] for report in reports} == {limit}


# Preconditioners

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 6)) * np.geomspace(1e-2, 1e1, 6)  # of very different sizes
LABELS = RNG.normal(size=(40, 3))


def deep(p):
    # JAX 0.10.2 takes a NumPy array that a jitted function has seen in float64 for float64 later.
    inputs = jnp.asarray(INPUTS, p["first"].dtype)
    return jnp.tanh(inputs @ p["first"] + p["bias"]) @ p["second"]


DEEP = so.compose(so.squared_error(LABELS), deep)


def deep_start():
    draw = lambda *shape: jnp.asarray(np.random.default_rng(1).normal(size=shape))
    return {"bias": draw(5), "first": draw(6, 5) / 3, "second": draw(5, 3)}


PRECONDITIONERS = {
    "K-FAC": curvature.layerwise(DEEP, curvature.ggn_components()),
    "EKFAC": curvature.layerwise(DEEP, curvature.ggn_components(), eigen=True),
    "the empirical diagonal": curvature.empirical_diagonal(samples=100),
}


def solved(preconditioner, damping, p):
    """CG to the end, with the curvature's inverse as preconditioner or none."""
    model, inverse = so.exact(so.ggn), None
    if preconditioner is not None:
        model = curvature.preconditioned(model, preconditioner)
        inverse = solvers.known_inverse()
    cg = solvers.cg(500, solvers.relative_residual(1e-8), inverse)

    @jax.jit
    def solve(p):
        g = jax.grad(DEEP)(p)
        op, _ = model.at(g, model.init(p), p, DEEP, damping)
        step, _ = cg.update(so.Quadratic(g, op), cg.init(p), damping)
        inverse = None
        if preconditioner is not None:
            columns = jax.vmap(lambda e: ravel(op.solve(unravel(e, p), damping)))
            inverse = columns(jnp.eye(so.tree.size(p)))
        return step, inverse

    return solve(p)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_a_preconditioner_is_one_definite_matrix_and_leads_to_the_same_step(x64, name):
    p, damping = deep_start(), jnp.asarray(1e-4)
    step, inverse = solved(PRECONDITIONERS[name], damping, p)
    assert_close(inverse, inverse.T, np.linalg.cond(inverse))
    assert np.linalg.eigvalsh(inverse).min() > 0
    matrix = so.dense(so.ggn(DEEP, p), p) + damping * np.eye(inverse.shape[0])
    expected = -np.linalg.solve(matrix, ravel(jax.grad(DEEP)(p)))
    np.testing.assert_allclose(ravel(step.direction), expected, atol=1e-4)
    assert step.report.stopped == solvers.Stop.SOLVED


@pytest.mark.slow
def test_the_inverse_of_layers_takes_at_most_half_of_the_products(x64):
    p, damping = deep_start(), jnp.asarray(1e-4)
    plain, _ = solved(None, damping, p)
    layers, _ = solved(PRECONDITIONERS["K-FAC"], damping, p)
    assert layers.report.products <= plain.report.products / 2


def test_the_empirical_diagonal_is_that_of_the_empirical_fisher_in_expectation(x64):
    p, model = deep_start(), curvature.empirical_diagonal(exponent=0.6, samples=50)

    def drawn(key):
        state = model.init(p)._replace(key=jax.random.key_data(key))
        op, _ = model.at(jax.grad(DEEP)(p), state, p, DEEP, 0.0)
        return ravel(op.entries), ravel(op.solve(jax.tree.map(jnp.ones_like, p), 1e-3))

    entries, inverse = jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(3), 40))
    expected = np.diag(so.dense(so.empirical_fisher(DEEP, p), p))
    error = np.std(entries, axis=0) / np.sqrt(len(entries))
    assert np.all(np.abs(np.mean(entries, axis=0) - expected) < 5 * error)
    np.testing.assert_allclose(inverse, (entries + 1e-3) ** -0.6, rtol=rounding())


@pytest.mark.slow
@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_a_preconditioned_method_descends_and_remembers_what_it_sampled(name):
    cast = lambda p: jax.tree.map(lambda x: x.astype("float32"), p)
    tx = so.hessian_free(preconditioner=PRECONDITIONERS[name], tolerance=2e-3)
    solution = so.minimize(DEEP, cast(deep_start()), tx, max_steps=8)
    assert solution.value < 0.3 * DEEP(cast(deep_start()))
    assert solution.state.curvature[1].samples == solution.state.count - solution.state.rejections


def test_a_curvature_without_an_inverse_preconditions_nothing():
    tx = so.scale_by_curvature(
        so.exact(so.ggn), solvers.cg(preconditioner=solvers.known_inverse()), so.trust.damping()
    )
    p = start()
    with pytest.raises(TypeError, match="a GaussNewton has none"):
        tx.update(jax.grad(OBJECTIVE)(p), tx.init(p), p, value_fn=OBJECTIVE)
    with pytest.raises(ValueError, match="samples=0"):
        curvature.empirical_diagonal(samples=0)
