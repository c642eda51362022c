"""Natural gradient: the same step for any coordinates, and downhill from anywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import assert_close

import secondorder as so

pytestmark = pytest.mark.usefixtures("x64")
X = np.linspace(0.0, 2.0, 9)


def step_of(tx, f, p, state=None):
    """One update; compiled, as in a loop."""

    @jax.jit
    def update(p, state):
        value, grad = jax.value_and_grad(f)(p)
        return tx.update(grad, state, p, value=value, grad=grad, value_fn=f)

    return update(p, tx.init(p) if state is None else state)


@pytest.mark.quick(1)
@pytest.mark.parametrize("count", [2, 9], ids=["fewer samples", "more samples"])
def test_other_coordinates_give_the_same_step_to_first_order(count):
    """For p = φ(q) smooth, the step in q is ``φ'⁻¹`` times the step in p, as λ goes to zero."""
    x = X[:count]
    f = so.compose(so.sigmoid_cross_entropy(x / 2), lambda p: p[0] * jnp.exp(p[1] * x) + p[2])
    if count == 9:
        p = jnp.array([0.7, -0.4, 0.2])
        change = lambda q: jnp.stack([q[0] ** 3, jnp.sinh(q[1]), q[2] + 0.5 * q[0]])
    else:  # the shortest of many steps depends on the metric, unless it turns alone
        p = jnp.array([0.7, -0.4, 0.2])
        turn = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0])
        change = lambda q: turn @ q
    q = jnp.array([0.7 ** (1 / 3), np.arcsinh(-0.4), 0.2 - 0.5 * 0.7 ** (1 / 3)])
    q = q if count == 9 else turn.T @ p
    assert_close(change(q), p)
    tx = so.natural_gradient(1.0, trust=1e-12)
    in_p, _ = step_of(tx, f, p)
    g = so.compose(f.loss, lambda q: f.model(change(q)))
    in_q, _ = step_of(tx, g, q)
    np.testing.assert_allclose(jax.jacobian(change)(q) @ in_q, in_p, rtol=1e-5)
    # The very point: off by the square of the step's length, so a tenth of it by a hundredth.
    error = lambda t: np.linalg.norm(change(q + t * in_q) - (p + t * in_p))
    assert error(1e-3) < 0.02 * error(1e-2) + 1e-9


def test_physics_and_boundary_are_two_terms_of_one_objective():
    """−u″ = π² sin(πx), u(0) = u(1) = 0, by sines: linear, so one whole step solves it."""
    inside, ends, k = np.linspace(0.1, 0.9, 7), np.array([0.0, 1.0]), np.arange(1, 4)
    u = lambda p, x: jnp.sin(np.pi * np.outer(x, k)) @ p[:3] + p[3] + p[4] * x

    def model(p):
        bend = jnp.sin(np.pi * np.outer(inside, k)) @ ((np.pi * k) ** 2 * p[:3])
        return bend - np.pi**2 * np.sin(np.pi * inside), u(p, ends)

    loss = so.losses.total(so.squared_error(jnp.zeros(7)), so.squared_error(jnp.zeros(2)))
    p = jnp.zeros(5)
    step, state = step_of(so.natural_gradient(), so.compose(loss, model), p)
    np.testing.assert_allclose(step, [1, 0, 0, 0, 0], atol=1e-6)
    assert so.diagnostics(state)["dimension"] == 5


def test_the_space_is_said_in_the_diagnostics():
    model = lambda p: jnp.tanh(X[:, None] @ p[None, :]) @ jnp.ones(20)
    f = so.compose(so.squared_error(X), model)
    _, state = step_of(so.natural_gradient(), f, jnp.linspace(0.0, 1.0, 20))
    assert so.diagnostics(state)["dimension"] == 9


@pytest.mark.slow
def test_a_step_by_products_is_the_step_of_the_factorised_gram():
    model = lambda p, x: jnp.tanh(x * p["a"] + p["b"]) @ p["c"]
    f = so.per_example(so.sigmoid_cross_entropy(X / 2), model, X)
    p = {k: jnp.cos(n + np.arange(8.0)) for n, k in enumerate("abc")}
    inner = so.solvers.cg(100, so.solvers.relative_residual(1e-13), so.solvers.nystrom(4))
    tx = [so.natural_gradient(trust=so.trust.damping(1e-6), solver=s) for s in (None, inner)]
    (expected, _), (found, state) = (step_of(kind, f, p) for kind in tx)
    rows = np.concatenate(jax.tree.leaves(jax.jacobian(f.model)(p)), axis=1)
    kappa = 1 + np.linalg.norm(rows, 2) ** 2 / (4 * len(X) * 1e-6)
    for name in p:
        assert_close(found[name], expected[name], kappa)
    seen = so.diagnostics(state)
    assert seen["dimension"] == 9 and seen["jacobians"] == 0 and seen["residual"] < 1e-8
    assert seen["products"] == seen["iterations"] + 1 + 4


@pytest.mark.slow
@pytest.mark.parametrize("trust", [None, so.trust.damping(1e-3)], ids=["searched", "damping"])
def test_from_far_away_every_step_descends(trust):
    f = so.sum_of_squares(lambda p: p[0] * jnp.exp(p[1] * X) - np.exp(-X))
    p, tx = jnp.array([5.0, 2.0]), so.natural_gradient(trust=trust)
    state, values = tx.init(p), [f(p)]
    for _ in range(40):
        updates, state = step_of(tx, f, p, state)
        p = optax.apply_updates(p, updates)
        values.append(f(p))
    assert all(b <= a for a, b in zip(values, values[1:], strict=False))
    np.testing.assert_allclose(p, [1.0, -1.0], rtol=1e-5)


def test_a_search_takes_the_fraction_that_descends_furthest():
    f = so.sum_of_squares(lambda p: jnp.arctan(p))  # a whole step goes to the other side and on
    p = jnp.array([4.0])
    step, state = step_of(so.natural_gradient(acceleration=False), f, p)
    whole = so.natural_gradient(1.0, trust=1e-12)
    newton, _ = step_of(whole, f, p)
    values = [float(f(p + newton * 0.5**k)) for k in range(12)]
    best = next(k for k in range(11) if values[k] < float(f(p)) and values[k + 1] >= values[k])
    assert best > 0
    np.testing.assert_allclose(step, newton * 0.5**best, rtol=1e-6)
    assert so.diagnostics(state)["accepted"]


def test_momentum_is_of_the_step_that_was_taken():
    f = so.sum_of_squares(lambda p: jnp.arctan(p))
    step, state = step_of(so.natural_gradient(), f, jnp.array([4.0]))
    np.testing.assert_array_equal(state.solver.step, step)


def test_a_plateau_of_nan_around_is_stepped_within():
    wall = lambda p: jnp.where(jnp.abs(p) > 1.1, jnp.nan, jnp.exp(p) - 3.0)
    step, state = step_of(so.natural_gradient(), so.sum_of_squares(wall), jnp.array([1.0]))
    assert 0 < step[0] <= 0.1 and so.diagnostics(state)["accepted"]


@pytest.mark.slow
def test_in_float32_a_wide_network_is_fitted_as_closely_as_its_samples_allow():
    """Were λ kept above as many ε as there are parameters, the error would end at 3e-4."""
    rng = np.random.default_rng(0)
    real = lambda *shape: rng.normal(size=shape).astype(np.float32)
    x = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
    params = [real(2, 48), real(48, 48) / np.float32(7), real(48) / np.float32(7)]
    targets = np.sin(3 * x[:, 0]) * np.cos(2 * x[:, 1])
    loss = so.squared_error(targets)
    f = so.compose(loss, lambda p: jnp.tanh(jnp.tanh(x @ p[0]) @ p[1]) @ p[2])
    tx = so.natural_gradient()
    step = jax.jit(lambda p, state: step_of(tx, f, p, state))
    state = tx.init(params)
    for _ in range(20):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    assert jax.tree.leaves(params)[0].dtype == jnp.float32
    assert f(params) < 1e-5
