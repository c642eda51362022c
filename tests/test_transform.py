"""The combinator: what reaches the solver, what a rejection leaves alone, and the gain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import secondorder as so
from secondorder import solvers, trust
from secondorder.curvature import Curvature
from secondorder.state import find_states


def scalar(f):
    """``f`` of the one entry of the parameters."""
    return lambda p: f(p[0])


@functools.lru_cache(maxsize=1)
def compiled_update(tx, value_fn):
    """An update with everything passed."""

    @jax.jit
    def update(params, state, extra):
        value, grad = jax.value_and_grad(value_fn)(params)
        given = {"value": value, "grad": grad} | extra
        return tx.update(grad, state, params, value_fn=value_fn, **given)

    return update


def one_update(tx, value_fn, params, state=None, **extra):
    """One compiled update; of the same method and function the next one is compiled already."""
    state = tx.init(params) if state is None else state
    return compiled_update(tx, value_fn)(params, state, extra)


def scale_by(curved=None, solver=None, policy=None):
    return so.scale_by_curvature(
        curved or so.exact(so.hessian), solver or solvers.direct(), policy or trust.damping(1.0)
    )


# The step


def test_the_updates_are_the_step_to_the_minimum_of_a_quadratic():
    matrix, target = jnp.array([[3.0, 1.0], [1.0, 2.0]]), jnp.array([1.0, -2.0])
    f = lambda p: 0.5 * (p - target) @ matrix @ (p - target)
    tx = scale_by(policy=trust.fixed())
    updates, state = one_update(tx, f, jnp.zeros(2))
    np.testing.assert_allclose(updates, target, rtol=1e-5)
    np.testing.assert_allclose(so.diagnostics(state)["predicted"], -f(jnp.zeros(2)), rtol=1e-5)


def test_the_solver_gets_the_updates_and_not_the_grad_keyword():
    f = lambda p: 0.5 * p @ p
    tx = scale_by(so.curvature.identity(), solvers.apply_inverse(), trust.fixed())
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)), jnp.zeros(2), value_fn=f, grad=None)
    np.testing.assert_allclose(updates, -jnp.ones(2))


def test_the_scalar_of_the_policy_reaches_the_solver():
    f = lambda p: p @ p
    for damping in (0.0, 2.0):
        tx = scale_by(policy=trust.fixed(damping))
        updates, _ = one_update(tx, f, jnp.array([1.0, -1.0]))
        np.testing.assert_allclose(updates, np.array([-2.0, 2.0]) / (2 + damping), rtol=1e-6)


def counted(f):
    """``f``, and how often Python has run it."""
    calls = []

    def g(p):
        calls.append(1)
        return f(p)

    return g, calls


def test_an_open_loop_policy_pays_for_no_evaluation_and_a_closed_one_for_one():
    params = jnp.array([1.0, 2.0])
    runs = {}
    for name, policy in {"open": trust.fixed(), "closed": trust.damping()}.items():
        for known in (True, False):
            f, calls = counted(lambda p: jnp.sum(jnp.cosh(p)))
            tx = scale_by(policy=policy)
            value = jnp.sum(jnp.cosh(params)) if known else None
            grads = jnp.sinh(params)
            state = tx.init(params)
            tx.update(grads, state, params, value=value, value_fn=f)
            runs[name, known] = len(calls)
    # A closed one traces it twice more without an evaluation: for the modes it has, and for the
    # branch in which another objective judges the last step.
    assert runs["open", True] == runs["open", False] == runs["closed", True] - 3
    assert runs["closed", False] == runs["closed", True] + 1


def test_counts_add_up_over_the_updates():
    tx, params = (
        scale_by(so.exact(so.ggn), solvers.cg(3), trust.damping(1e-3)),
        jnp.array([-1.2, 1]),
    )
    f = so.sum_of_squares(lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]]))
    state, products, rejections = tx.init(params), 0, 0
    step = jax.jit(lambda p, s: tx.update(jax.grad(f)(p), s, p, value_fn=f))
    for _ in range(8):
        updates, state = step(params, state)
        params = params + updates
        report = so.diagnostics(state)
        products += report["products"]
        rejections += not report["accepted"]
    assert report["steps"] == 8
    assert report["total_products"] == products > 8
    assert report["rejections"] == rejections > 0


# Rejection


def remembering() -> Curvature:
    """The Hessian, with a memory that moves at every update: a count and a sum of gradients."""

    def update(grads, state, params, value_fn):
        count, momentum = state
        momentum = jax.tree.map(jnp.add, momentum, grads)
        return so.hessian(value_fn, params), (count + 1, momentum)

    return Curvature(lambda p: (jnp.zeros((), jnp.int32), jnp.zeros_like(p)), update)


ROOT = scalar(lambda x: jnp.sqrt(1 + x**2))  # Newton's step from beyond 1 goes too far


@pytest.mark.parametrize("start", [0.5, 3.0], ids=["accepted", "rejected"])
def test_a_rejection_leaves_parameters_momentum_and_warm_start_alone(start):
    params = jnp.array([start])
    tx = scale_by(remembering(), solvers.cg(warm_start=0.9), trust.damping(1e-3))
    state = tx.init(params)
    state = state._replace(solver=state.solver._replace(warm=jnp.array([-0.125])))
    updates, new = one_update(tx, ROOT, params, state)
    accepted = bool(so.diagnostics(new)["accepted"])
    assert accepted == (start == 0.5)
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), new, state)
    assert same.curvature == ((not accepted,) * 2)
    assert same.solver.warm == (not accepted)
    assert bool(updates[0] == 0) == (not accepted)
    assert new.rejections == (not accepted) and new.count == 1
    assert bool(new.trust.scale > state.trust.scale) == (not accepted)


def test_the_scaling_of_the_columns_is_rolled_back_with_a_rejection():
    # The residual grows beyond any bound where the step lands, so the step is rejected.
    f = so.sum_of_squares(lambda p: jnp.stack([p[0] + 1, jnp.where(p[0] < -0.5, 1e3, 0.0)]))
    tx = scale_by(so.exact(so.ggn), solvers.qr(), trust.damping(1e-3))
    state = tx.init(jnp.zeros(1))
    _, new = one_update(tx, f, jnp.zeros(1), state)
    assert not so.diagnostics(new)["accepted"]
    jax.tree.map(np.testing.assert_array_equal, new.solver, state.solver)
    _, new = one_update(tx, f, jnp.array([-0.9]), state)
    assert so.diagnostics(new)["accepted"]
    assert jax.tree.leaves(new.solver)[0] == 1


def test_a_rejected_step_is_tried_again_shorter_until_it_descends():
    params = jnp.array([3.0])
    tx = scale_by(policy=trust.damping(1e-6))
    state, tried = tx.init(params), []
    for _ in range(60):
        updates, state = one_update(tx, ROOT, params, state)
        tried.append(float(so.diagnostics(state)["length"]))
        if so.diagnostics(state)["accepted"]:
            break
    assert len(tried) > 1 and tried == sorted(tried, reverse=True)
    assert ROOT(params + updates) < ROOT(params)


def test_a_sampled_curvature_draws_anew_only_after_an_accepted_step():
    x = jnp.linspace(-1.0, 2.0, 8)
    tx = scale_by(so.exact(so.fisher, seed=0, samples=2), solvers.cg(), trust.damping(1.0))
    key_of = lambda state: state.curvature
    for wall in (1e3, 1e-9):  # beyond it the model is NaN
        model = lambda p: jnp.where(jnp.abs(p[0]) > wall, jnp.nan, p[0] * x)  # noqa: B023
        f = so.compose(so.squared_error(3 * x + 1), model)
        state = tx.init(jnp.zeros(1))
        _, new = one_update(tx, f, jnp.zeros(1), state)
        moved = bool(jnp.any(key_of(new) != key_of(state)))
        assert moved == bool(so.diagnostics(new)["accepted"]) == (wall > 1)


def test_in_a_chain_the_step_that_was_tried_is_the_step_that_is_taken():
    # What follows the method sees zeros after a rejection.
    tx = optax.chain(scale_by(policy=trust.damping(1e-6)), optax.scale(1.0))
    updates, _ = one_update(tx, ROOT, jnp.array([3.0]))
    assert updates[0] == 0


# The gain


@pytest.mark.quick(1)
@pytest.mark.parametrize("start", [0.3, 1.0, 2.0])
def test_the_gain_is_the_actual_over_the_predicted_change(x64, start):
    f = scalar(lambda x: x**4 + jnp.sin(x))
    params = jnp.array([start])
    tx = scale_by(policy=trust.damping(1e-9))
    updates, state = one_update(tx, f, params)
    g, h = jax.grad(f)(params)[0], jax.hessian(f)(params)[0, 0]
    d = -g / (h + 1e-9)
    gain = (f(params + d) - f(params)) / (g * d + 0.5 * h * d**2)
    report = so.diagnostics(state)
    np.testing.assert_allclose(report["gain"], gain, rtol=1e-8)
    assert bool(report["accepted"]) == bool(gain > 1e-4)


def test_a_wrong_value_shows_in_the_gain():
    # The gain is about `value`: one that is too low makes the step look bad.
    f, params = scalar(lambda x: x**2 / 2), jnp.array([3.0])
    tx = scale_by(policy=trust.damping(1e-9))
    for value, accepted in ((4.5, True), (-1.0, False)):
        _, state = one_update(tx, f, params, value=value)
        assert bool(so.diagnostics(state)["accepted"]) == accepted


def test_where_the_difference_of_values_has_the_wrong_sign_the_slopes_decide():
    # An expanded square far from the origin: its value in float32 is noise of size 0.1 around
    # 1000 + (x − 1000)², while its slope 2x − 2000 is exact.
    @jax.custom_jvp
    def f(p):
        x = p[0]
        return x * x - 2000.0 * x + 1e6 + 1e3

    f.defjvps(lambda t, _, p: (2 * p[0] - 2000.0) * t[0])
    tx = scale_by(policy=trust.damping(1e-9))

    @jax.jit
    @jax.vmap
    def try_from(x):
        params = x[None]
        value, grad = jax.value_and_grad(f)(params)
        updates, state = tx.update(grad, tx.init(params), params, value=value, value_fn=f)
        report = so.diagnostics(state)
        return f(params + (-grad / 2)) - value, report["accepted"], report["gain"]

    starts = 1000 + jnp.linspace(-0.1, 0.1, 40)
    difference, accepted, gain = try_from(starts)
    assert (difference > 0).sum() > 3
    assert accepted.all()
    np.testing.assert_allclose(gain, 1, atol=1e-2)


def test_slopes_that_rise_along_the_step_still_reject_it():
    # Near the limit of precision too, a step far across the minimum is refused.
    f = scalar(lambda x: 1e6 + jnp.where(x > 0, 1e-3 * x, -1e-2 * x) + 1e-6 * x**2)
    tx = scale_by(so.exact(so.hessian), policy=trust.damping(1e-9))
    params = jnp.array([1.0])
    updates, state = one_update(tx, f, params)
    report = so.diagnostics(state)
    assert report["gain"] < 0 and not report["accepted"] and not updates.any()


@pytest.mark.quick(1)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_trial_value_that_is_not_finite_is_rejected_with_stronger_damping(bad):
    f = scalar(lambda x: jnp.where(x < 0.5, bad, (x + 1) ** 2))
    for policy, stronger in ((trust.damping(1.0), np.greater), (trust.radius(10.0), np.less)):
        solver = solvers.direct() if policy.gives == "damping" else solvers.steihaug()
        tx = scale_by(solver=solver, policy=policy)
        state = tx.init(jnp.ones(1))
        updates, new = one_update(tx, f, jnp.ones(1), state)
        assert not so.diagnostics(new)["accepted"] and updates[0] == 0
        assert stronger(new.trust.scale, state.trust.scale)


def test_a_radius_recovers_from_many_batches_of_nan():
    tx, params = so.newton_cg(), jnp.ones(2)

    def update(state, factor):
        f = lambda p: factor * jnp.sum(jnp.cosh(p))
        value, grad = jax.value_and_grad(f)(params)
        return tx.update(grad, state, params, value=value, value_fn=f)

    update = jax.jit(update)
    _, state = update(tx.init(params), 1.0)
    state = state._replace(trust=state.trust._replace(scale=jnp.float32(1.0)))
    for _ in range(200):
        updates, state = update(state, jnp.nan)
        assert not updates.any()
    for _ in range(200):
        updates, state = update(state, 1.0)
    np.testing.assert_allclose(updates, -jnp.tanh(params), rtol=1e-2)


# Low precision


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_parameters_of_low_precision_get_a_gain_in_float32(dtype):
    f = lambda p: jnp.sum(jnp.cosh(p.astype(jnp.float32) - 1))
    params = jnp.zeros(2, dtype)
    updates, state = one_update(scale_by(policy=trust.damping(1e-3)), f, params)
    report = so.diagnostics(state)
    assert updates.dtype == dtype and report["gain"].dtype == jnp.float32
    # the gain of the step as it was rounded
    actual = f(params + updates) - f(params)
    np.testing.assert_allclose(report["gain"] * report["predicted"], actual, rtol=2e-2)


def test_a_step_that_overflows_the_parameters_dtype_is_rejected():
    f = scalar(lambda x: 1e-6 * x.astype(jnp.float32) ** 2 - x.astype(jnp.float32))
    tx = scale_by(policy=trust.fixed())
    updates, state = one_update(tx, f, jnp.zeros(1, jnp.float16))
    assert updates[0] == 0 and not so.diagnostics(state)["accepted"]


# What is refused


def test_a_solver_of_a_radius_with_a_policy_of_damping_is_refused_in_a_sentence():
    with pytest.raises(
        ValueError, match="The solver reads a radius, but the trust policy gives a d"
    ):
        scale_by(solver=solvers.steihaug(), policy=trust.damping())
    with pytest.raises(
        ValueError, match="The solver reads a damping, but the trust policy gives a r"
    ):
        scale_by(solver=solvers.cg(), policy=trust.radius())
    for solver in (solvers.steihaug(), solvers.cg()):
        scale_by(solver=solver, policy=trust.fixed(1.0))


def test_a_value_fn_that_is_no_function_is_refused_with_what_it_was():
    tx = scale_by()
    with pytest.raises(TypeError, match="value_fn must be a function of params, but is 3.0"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), value_fn=3.0)


def test_gradients_of_another_tree_or_shape_are_refused_by_name():
    tx, params = scale_by(), {"a": jnp.ones(2), "b": jnp.ones(3)}
    f = lambda p: jnp.sum(p["a"] ** 2)
    with pytest.raises(ValueError, match="the gradients must have the tree structure of params"):
        tx.update({"a": jnp.ones(2)}, tx.init(params), params, value_fn=f)
    with pytest.raises(ValueError, match=r"gradients\['b'\] has shape \(2,\).*\(3,\)"):
        tx.update({"a": jnp.ones(2), "b": jnp.ones(2)}, tx.init(params), params, value_fn=f)


# Diagnostics

KEYS = {
    "steps", "rejections", "total_products", "accepted", "gain", "scale", "predicted", "length",
    "iterations", "products", "residual", "optimality", "stopped",
}  # fmt: skip
SEARCH_KEYS = {"learning_rate", "linesearch_steps"}

WRAPPERS = {
    "bare": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.clip(10.0), tx, optax.identity()),
    "named_chain": lambda tx: optax.named_chain(("method", tx)),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "masked": lambda tx: optax.masked(tx, True),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(lambda rate: tx)(rate=1.0),
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_diagnostics_are_found_inside_any_wrapper(wrapper):
    f = so.sum_of_squares(lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]]))
    params = jnp.array([-1.2, 1.0])
    tx = WRAPPERS[wrapper](so.levenberg_marquardt())
    assert KEYS <= set(so.diagnostics(tx.init(params)))
    _, state = one_update(tx, f, params)
    report = jax.jit(so.diagnostics)(state)
    assert KEYS <= set(report) and not SEARCH_KEYS & set(report)
    assert report["steps"] == 1 and report["products"] == report["total_products"] == 2
    assert bool(report["accepted"]) == bool(report["gain"] > 0)
    assert report["predicted"] < 0 < report["length"]


def test_diagnostics_show_the_line_search_where_there_is_one():
    tx = so.newton()
    _, state = one_update(tx, ROOT, jnp.array([3.0]))
    report = so.diagnostics(state)
    assert KEYS | SEARCH_KEYS <= set(report)
    assert 0 < report["learning_rate"] < 1 and report["linesearch_steps"] >= 1


def test_diagnostics_of_a_foreign_state_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="no state of this library's methods.*init or update"):
        so.diagnostics(optax.adam(1e-3).init(jnp.ones(2)))


@pytest.mark.slow
def test_every_state_of_a_partition_is_found():
    tx = optax.partition(
        {"a": so.newton_cg(), "b": so.levenberg_marquardt(trust=so.trust.damping(0.1))},
        {"u": "a", "v": "b"},
    )
    params = {"u": jnp.ones(2), "v": jnp.ones(3)}
    f = so.restrict(so.sum_of_squares(lambda p: jnp.concatenate([p["u"] - 2, p["v"] ** 2])), params)
    value, grad = jax.value_and_grad(f)(params)
    _, state = tx.update(grad, tx.init(params), params, value=value, value_fn=f)
    first, second = find_states(state)
    assert first.count == second.count == 1
    assert first.trust.scale != second.trust.scale


# A stationary point and a changing objective


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "tx",
    [
        scale_by(),
        scale_by(solver=solvers.cg(warm_start=0.9)),
        scale_by(solver=solvers.steihaug(), policy=trust.radius()),
        scale_by(so.exact(so.ggn), solvers.qr()),
        so.newton(),
    ],
    ids=["direct", "cg", "steihaug", "qr", "newton"],
)
def test_at_a_minimum_nothing_moves_and_nothing_is_nan(tx):
    f = so.sum_of_squares(lambda p: p - 1.0)
    params, state = jnp.ones(2), tx.init(jnp.ones(2))
    for _ in range(2):
        updates, state = one_update(tx, f, params, state)
        assert not updates.any()
        report = so.diagnostics(state)
        assert report["predicted"] == report["length"] == 0 and not np.isnan(report["scale"])


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "tx",
    [so.levenberg_marquardt(), so.hessian_free(), so.newton_cg(trust=1.0), so.dogleg(trust=1.0)],
    ids=["levenberg_marquardt", "hessian_free", "newton_cg", "dogleg"],
)
def test_a_rest_at_the_minimum_does_not_tie_the_next_steps_down(tx):
    # The target stays until the gradient is exactly zero, and then moves on.
    def objective(target):
        return so.sum_of_squares(lambda p: jnp.stack([p[0] - target, 2 * (p[1] - target)]))

    update = jax.jit(functools.partial(_at, tx, objective))
    params, state = jnp.zeros(2), tx.init(jnp.zeros(2))
    for target, steps in ((1.0, 60), (2.0, 12)):
        for _ in range(steps):
            updates, state = update(params, state, target)
            params = params + updates
        np.testing.assert_allclose(params, target, atol=1e-3)


def test_after_many_batches_of_nan_levenberg_marquardt_comes_back():
    tx = so.levenberg_marquardt()
    objective = lambda target: so.sum_of_squares(lambda p: jnp.exp(p) - target)
    update = jax.jit(functools.partial(_at, tx, objective))
    params, state = jnp.zeros(2), tx.init(jnp.zeros(2))
    for target, steps in ((jnp.nan, 60), (2.0, 120)):
        for _ in range(steps):
            updates, state = update(params, state, target)
            params = params + updates
    np.testing.assert_allclose(params, np.log(2), atol=1e-3)


def test_one_objective_serves_value_products_and_trial():
    # Dropout with the key of this batch: another draw anywhere would show in the gain.
    x = jax.random.normal(jax.random.key(0), (8, 3))

    def objective(key):
        mask = jax.random.bernoulli(key, 0.5, (8, 3))
        return so.compose(so.squared_error(jnp.ones(8)), lambda p: (x * mask) @ p)

    tx = scale_by(so.exact(so.ggn), solvers.cg(), trust.damping(1e-6))
    params, state = jnp.zeros(3), tx.init(jnp.zeros(3))
    update = jax.jit(functools.partial(_at, tx, objective))
    for i in range(5):
        updates, state = update(params, state, jax.random.key(i))
        params = params + updates
        # A quadratic objective that is the same throughout is predicted exactly.
        np.testing.assert_allclose(so.diagnostics(state)["gain"], 1, rtol=1e-3)


def _at(tx, objective, params, state, data):
    """An update of the objective that belongs to the data."""
    f = objective(data)
    value, grad = jax.value_and_grad(f)(params)
    return tx.update(grad, state, params, value=value, grad=grad, value_fn=f)
