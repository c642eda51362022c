"""Models that JAX differentiates in one mode alone, and models with an inner program."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax
from tolerances import assert_close

import secondorder as so
from secondorder.operators import linearize
from secondorder.operators._modes import derivable

STEPS, H = 12, 0.1
RATES, TRUTH = (0.3, 0.1), (1.0, 0.5)  # start and solution of the decays
FORCES, CAUSE = (0.3, 1.5), (0.7, 2.0)  # likewise of the inner solve


def decay(p):
    """Euler's method for ``y' = −p₀ y − p₁ y³``."""

    def step(y, _):
        y = y - H * (p[0] * y + p[1] * y**3)
        return y, y

    return lax.scan(step, jnp.ones((), p.dtype), length=STEPS)[1]


def with_adjoint(back):
    @jax.custom_vjp
    def model(p):
        return decay(p)

    model.defvjp(lambda p: (decay(p), (p, decay(p))), back)
    return model


def _adjoint_step(p, y, u, a, slope):
    a = a + u
    slope = slope - H * jnp.stack([y * a, y**3 * a])
    return a * (1 - H * (p[0] + 3 * p[1] * y**2)), slope


def _before(ys):
    return jnp.concatenate([jnp.ones(1, ys.dtype), ys[:-1]])


def adjoint_by_scan(kept, u):
    """With the state carried beside its adjoint, as adjoint solvers do."""
    p, ys = kept

    def step(carry, x):
        a, slope, extra = carry
        return (*_adjoint_step(p, x[0], x[1], a, slope), jnp.sin(extra)), None

    start = jnp.zeros((), u.dtype), jnp.zeros_like(p), jnp.ones((), u.dtype)
    return (lax.scan(step, start, (_before(ys), u), reverse=True)[0][1],)


def adjoint_by_while(kept, u):
    p, ys = kept
    earlier = _before(ys)

    def step(carry):
        i, a, slope = carry
        return i - 1, *_adjoint_step(p, earlier[i], u[i], a, slope)

    start = jnp.asarray(STEPS - 1), jnp.zeros((), u.dtype), jnp.zeros_like(p)
    return (lax.while_loop(lambda c: c[0] >= 0, step, start)[2],)


def cause(p):
    """``y + p₀ y³ = p₁ t``, by Newton's method for as long as it takes."""
    t = jnp.linspace(0.1, 3, 7).astype(p.dtype)

    def step(carry):
        y, _, count = carry
        change = (y + p[0] * y**3 - p[1] * t) / (1 + 3 * p[0] * y**2)
        return y - change, jnp.max(jnp.abs(change)), count + 1

    going = lambda carry: (carry[1] > 1e-9) & (carry[2] < 30)
    return lax.while_loop(going, step, (t, jnp.ones((), p.dtype), 0))[0]


def cause_by_scan(p):
    t = jnp.linspace(0.1, 3, 7).astype(p.dtype)
    step = lambda y, _: (y - (y + p[0] * y**3 - p[1] * t) / (1 + 3 * p[0] * y**2), None)
    return lax.scan(step, t, length=30)[0]


def host(fn, *xs):
    """``fn`` of NumPy."""
    shape = jax.ShapeDtypeStruct(xs[0].shape, xs[0].dtype)
    return jax.pure_callback(
        lambda *xs: np.asarray(fn(*map(np.asarray, xs)), shape.dtype), shape, *xs
    )


TIMES = np.linspace(0.5, 4, 9)
of_times = lambda fn: lambda p: p[0] * fn(p[1] * jnp.asarray(TIMES, p.dtype))


@jax.custom_jvp
def sine_once(x):
    return host(np.sin, x)


sine_once.defjvp(lambda x, dx: (sine_once(x[0]), host(np.cos, x[0]) * dx[0]))


@jax.custom_jvp
def sine_forward(x):
    return host(np.sin, x)


@sine_forward.defjvp
def _(x, dx):
    return sine_forward(x[0]), host(lambda x, dx: np.cos(x) * dx, x[0], dx[0])


@jax.custom_vjp
def sine_backward(x):
    return host(np.sin, x)


sine_backward.defvjp(lambda x: (sine_backward(x), x), lambda x, u: (u * host(np.cos, x),))

# name: the model, the same for JAX to differentiate as it likes, start, solution
MODELS = {
    "adjoint": (with_adjoint(adjoint_by_scan), decay, RATES, TRUTH),
    "adjoint of unknown length": (with_adjoint(adjoint_by_while), decay, RATES, TRUTH),
    "inner solve": (cause, cause_by_scan, FORCES, CAUSE),
    "host": (of_times(sine_once), of_times(jnp.sin), (1.0, 1.0), (2.0, 1.3)),
    "host forward": (of_times(sine_forward), of_times(jnp.sin), (1.0, 1.0), (2.0, 1.3)),
    "host backward": (of_times(sine_backward), of_times(jnp.sin), (1.0, 1.0), (2.0, 1.3)),
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def eps(name):
    """In float64, but for callbacks: JAX hands them their arguments where x64 is off."""
    with jax.enable_x64(not name.startswith("host")):
        yield float(jnp.finfo(jnp.zeros(()).dtype).eps)


@pytest.mark.quick(2)
@every_model
def test_every_mode_gives_the_same_jacobian_and_gauss_newton_matrix(eps, name):
    model, plain, start, _ = MODELS[name]
    p = jnp.array(start)
    exact = np.asarray(jax.jit(jax.jacfwd(plain))(p))

    @jax.jit
    def found(p):
        at, op = linearize(model, p), so.ggn(so.sum_of_squares(model), p)
        scanned = lax.map(op.mv, jnp.eye(2, dtype=p.dtype))  # products from within another trace
        columns = lax.map(at.mv, jnp.eye(2, dtype=p.dtype))
        rows = lax.map(at.mvt, jnp.eye(exact.shape[0], dtype=p.dtype))
        return columns.T, rows, at.dense(), so.jacobian(model, p), scanned, so.dense(op, p)

    *jacobians, products, dense = found(p)
    for j in jacobians:
        assert oracles.relative_error(j, exact) < 1e4 * eps
    for b in (products, dense):
        assert oracles.relative_error(b, exact.T @ exact) < 1e4 * eps


@pytest.mark.quick(1)
@every_model
def test_least_squares_and_curve_fit_end_at_the_truth(eps, name):
    model, _, start, truth = MODELS[name]
    data = model(jnp.array(truth))

    @jax.jit
    def fit(start, data):
        found = so.curve_fit(lambda p, x: model(p), None, data, start)
        return found.solution, found.covariance

    solution, covariance = fit(jnp.array(start), data)
    assert bool(solution.success)
    np.testing.assert_allclose(solution.params, truth, rtol=eps**0.5)
    assert np.all(np.isfinite(covariance))
    accelerated = 1 if name.startswith("host") else 2
    assert so.diagnostics(solution.state)["order"] == accelerated


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("adjoint", "dogleg"),
        ("adjoint of unknown length", "gauss_newton"),
        ("inner solve", "gauss_newton"),
        ("inner solve", "hybrid_newton"),
        ("host", "natural_gradient"),
        ("host backward", "gauss_newton"),
    ],
)
def test_every_method_of_residuals_takes_the_modes_there_are(eps, name, method):
    model, _, start, truth = MODELS[name]
    data = model(jnp.array(truth))
    solve = lambda p: so.least_squares(lambda p: model(p) - data, p, getattr(so, method)())
    solution = jax.jit(solve)(jnp.array(start))
    assert bool(solution.success)
    np.testing.assert_allclose(solution.params, truth, rtol=10 * eps**0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adjoint", "inner solve"])
def test_the_default_of_minimize_and_its_implicit_derivative(x64, name):
    model, plain, start, truth = MODELS[name]
    data = plain(jnp.array(truth))

    def best(scale):
        f = lambda p: 0.5 * jnp.sum((model(p) - scale * data) ** 2)
        return so.minimize(f, jnp.array(start))

    solution, (derivative, value) = jax.jit(
        lambda s: (best(s), jax.jvp(lambda s: (best(s).params, best(s).value), (s,), (1.0,))[1])
    )(1.1)
    assert bool(solution.success)
    objective = lambda p, s: 0.5 * jnp.sum((plain(p) - s * data) ** 2)
    at, slope = solution.params, jax.grad(objective)
    np.testing.assert_allclose(slope(at, 1.1), 0, atol=1e-6)
    drift = jax.jacfwd(slope, 1)(at, 1.1)
    expected = -np.linalg.solve(jax.hessian(objective)(at, 1.1), drift)
    np.testing.assert_allclose(derivative, expected, rtol=1e-5)
    expected = jax.grad(objective, 1)(at, 1.1)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-8 * (data @ data))


@pytest.mark.slow
def test_a_model_that_bends_but_once_is_not_accelerated():
    def bends(name):
        found = linearize(MODELS[name][0], jnp.array(MODELS[name][2]))
        return found.bends(2), found.bends(3)

    assert bends("adjoint") == bends("inner solve") == (True, True)
    assert bends("host") == bends("host forward") == bends("host backward") == (False, False)


def test_a_loop_of_ones_own_takes_a_model_of_one_mode(x64):
    model, _, start, truth = MODELS["adjoint"]
    f = so.sum_of_squares(lambda p: model(p) - model(jnp.array(truth)))
    opt = so.levenberg_marquardt()

    @jax.jit
    def step(p, state):
        value, grad = jax.value_and_grad(f)(p)
        updates, state = opt.update(grad, state, p, value=value, grad=grad, value_fn=f)
        return p + updates, state, value

    p = jnp.array(start)
    state = opt.init(p)
    for _ in range(8):
        p, state, value = step(p, state)
    assert value < 1e-20


def test_what_has_no_derivative_says_so_and_so_does_a_hessian():
    bare = lambda p: host(np.sin, p)
    with pytest.raises(TypeError, match="has no derivative"):
        so.ggn(so.sum_of_squares(bare), jnp.ones(2))
    with pytest.raises(TypeError, match="has no derivative"):
        so.least_squares(bare, jnp.ones(2))
    with pytest.raises(TypeError, match="Hessian needs second derivatives"):
        so.hessian(lambda p: jnp.sum(MODELS["host"][0](p)), jnp.ones(2))
    with pytest.raises(TypeError, match="Hessian needs second derivatives"):
        so.least_squares(MODELS["host"][0], jnp.ones(2), so.hybrid_newton())
    wrong = lambda p: p @ jnp.ones(3)
    with pytest.raises(TypeError, match="dot_general"):
        so.ggn(so.sum_of_squares(wrong), jnp.ones(2))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["adjoint", "inner solve"])
def test_the_given_mode_is_that_of_all_arguments(x64, name):
    model, plain, start, _ = MODELS[name]
    shifted = lambda p, s: jnp.sin(s * model(p * s))
    same = lambda p, s: jnp.sin(s * plain(p * s))
    p, s = jnp.array(start), jnp.array(1.2)
    both = derivable(shifted, p, s)
    for along in ((jnp.array([0.3, -1.0]), jnp.array(0.7)), (jnp.ones(2), jnp.zeros(()))):
        found = jax.jit(lambda t: jax.jvp(both, (p, s), t)[1])(along)
        assert_close(found, jax.jvp(same, (p, s), along)[1], STEPS)
    found = jax.jit(jax.grad(lambda p: jnp.sum(both(p, s) ** 2)))(p)
    expected = jax.grad(lambda p: jnp.sum(same(p, s) ** 2))(p)
    assert_close(found, expected, STEPS)


def test_a_model_with_both_modes_is_left_as_it_is():
    assert derivable(decay, jnp.array(RATES)) is decay


# --------------------------------------------------------------------- programs within the model


@jax.custom_jvp
def ruled(x):
    return jnp.sin(x)


ruled.defjvp(lambda x, dx: (ruled(x[0]), jnp.cos(x[0]) * dx[0]))
_doubling = lambda p: lambda x, _: (jnp.sin(x + p), x)

PROGRAMS = {
    "cond": lambda p: lax.cond(p[0] > 0, jnp.sin, jnp.cos, p),
    "switch": lambda p: lax.switch(1, [jnp.sin, lambda x: x**3, jnp.cos], p),
    "switch of data": lambda p: lax.switch(jnp.int32(p[1] > 0), [jnp.sin, lambda x: x**3], p),
    "scan": lambda p: lax.scan(_doubling(p), p, length=3)[0],
    "fori_loop": lambda p: lax.fori_loop(0, 3, lambda _, x: jnp.sin(x + p), p),
    "custom_jvp": ruled,
    "custom_vjp": with_adjoint(adjoint_by_scan),
    "checkpoint": jax.checkpoint(lambda p: jnp.sin(p) * p),
    "jit": jax.jit(lambda p: jnp.sin(p) * p),
    "cond in scan in jit": jax.jit(
        lambda p: lax.scan(
            lambda x, i: (lax.cond(i > 0, jnp.sin, lambda x: x * p, x), None), p, jnp.arange(3)
        )[0]
    ),
    "vmap of cond": lambda p: jax.vmap(lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x))(p),
    "linear solve": lambda p: jnp.linalg.solve(jnp.diag(p) + 3, p),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_model_with_a_program_within_serves_in_and_out_of_loops(x64, name):
    model = PROGRAMS[name]
    f, p, key = so.sum_of_squares(model), jnp.array([0.7, -0.4]), jax.random.key(0)
    j = np.asarray(oracles.finite_differences(model, p))
    expected = j.T @ j
    op = so.ggn(f, p)  # eagerly, and first used within a loop
    two = lax.fori_loop(0, 2, lambda _, v: op.mv(v), p)
    np.testing.assert_allclose(two, expected @ expected @ p, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(op.mv(p), expected @ p, rtol=1e-6, atol=1e-8)
    branch = lax.cond(p[0] > 0, op.mv, lambda v: v, p)
    np.testing.assert_allclose(branch, expected @ p, rtol=1e-6, atol=1e-8)
    many = jax.vmap(op.mv)(jnp.eye(2))
    np.testing.assert_allclose(many, expected, rtol=1e-6, atol=1e-8)
    if name == "cond":
        assert so.trace(op, p, key).value == pytest.approx(np.trace(expected), rel=1e-6)
