"""The protocol of solvers: any wrapper around any of them, and what outlives a rejected step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import rounding

import secondorder as so
from secondorder.optimize._ends import begin
from secondorder.optimize._implicit import opened
from secondorder.optimize._loop import once
from secondorder.optimize._records import Problem

START = {"a": {"w": np.array([-1.2, 1.0])}, "b": {"w": np.array(0.5)}}
TRUST = {"damping": lambda: so.trust.damping(1e-3), "radius": so.trust.radius}
TRUST |= {"cubic": lambda: so.trust.cubic(1e-3)}


def residual(p):
    x, y = p["a"]["w"]
    return jnp.stack([10 * (y - x**2), 1 - x, p["b"]["w"] * x - 1, jnp.sin(p["b"]["w"])])


VALLEY = so.sum_of_squares(residual)
SKETCH = so.solvers.nystrom(2, refresh_every=2)

# Those that read a damping and whose system is a matrix: a whole one, a layer's, or a Gram.
MATRIX = {
    "cg": so.solvers.cg(),
    "cg, sketched": so.solvers.cg(preconditioner=SKETCH),
    "cg, warm": so.solvers.cg(warm_start=0.9, iterates=3),
    "direct": so.solvers.direct(),
    "eigen": so.solvers.eigen(),
}
ROWS = {
    "sample_space": so.solvers.geodesic(so.solvers.sample_space(momentum=0.5)),
    "qr": so.solvers.geodesic(so.solvers.qr()),
    "svd": so.solvers.svd(),
    "prox_linear": so.solvers.prox_linear(),
}
REGIONS = {
    "clipped": so.solvers.box_constrained(),
    "dogleg": so.solvers.dogleg(),
    "exact_cubic": so.solvers.exact_cubic(),
    "exact_region": so.solvers.exact_region(),
    "gltr": so.solvers.gltr(),
    "hybrid_region": so.solvers.geodesic(so.solvers.hybrid_region()),
    "krylov_cubic": so.solvers.krylov_cubic(),
    "steihaug": so.solvers.steihaug(),
    "svd_region": so.solvers.geodesic(so.solvers.svd_region()),
}
LAYERS = {
    f"block_diagonal({name})": so.solvers.block_diagonal(s) for name, s in (MATRIX | ROWS).items()
}
SAMPLES = {
    f"sample_space({name})": so.solvers.sample_space(0.5, relative=True, solver=MATRIX[name])
    for name in ("cg", "direct", "eigen")
} | {
    "sample_space(cg, sketched)": so.solvers.sample_space(
        solver=so.solvers.cg(preconditioner=so.solvers.nystrom(2))
    )
}
PROX = {f"prox_linear({name})": so.solvers.prox_linear(s) for name, s in MATRIX.items()}
PLAIN = MATRIX | ROWS | REGIONS | {"apply_inverse": so.solvers.apply_inverse()}
SOLVERS = PLAIN | LAYERS | SAMPLES | PROX

WRAPPERS = {
    "momentum": so.solvers.momentum,
    "grafted": lambda solver: so.solvers.grafted(solver, optax.scale_by_rss(), 0.5),
    "optimal_scaling": so.solvers.optimal_scaling,
    "two": lambda solver: so.solvers.momentum(so.solvers.grafted(solver, None, 0.5)),
}


def curvature_of(name):
    if name.startswith("block_diagonal"):
        return so.curvature.preconditioned(so.exact(so.ggn), so.curvature.block_diagonal())
    if name in ("apply_inverse", "clipped"):
        return so.running(so.curvature.gradient(), so.curvature.diagonal(jnp.sqrt), decay=0.9)
    return so.curvature.hybrid() if name == "hybrid_region" else so.exact(so.ggn)


def wrapped(name, wrapper):
    return SOLVERS[name] if wrapper == "nothing" else WRAPPERS[wrapper](SOLVERS[name])


def method(name, wrapper):
    solver = wrapped(name, wrapper)
    return so.scale_by_curvature(curvature_of(name), solver, TRUST[solver.reads]())


def solve(name, wrapper, steps=12):
    """A method's steps in the loop of ``minimize``: what each costs, and whether it was taken."""
    build, theta = opened(VALLEY, jax.tree.map(jnp.asarray, START))
    tx = method(name, wrapper)
    problem = Problem(build(theta), optax.with_extra_args_support(tx), 1e-8, 100)

    def body(loop, _):
        loop = once(problem, loop)
        report = loop.state.step.report
        seen = report.products, report.jacobians, loop.state.trust.accepted, loop.params
        return loop, seen

    return lambda p: jax.lax.scan(body, begin(problem, p, 0), None, length=steps)


def trained(name, wrapper):
    """A method's step in a loop of Optax's users, and its first state."""
    tx = method(name, wrapper)

    def step(params, state):
        value, grads = jax.value_and_grad(VALLEY)(params)
        known = {"value": value, "grad": grads, "value_fn": VALLEY}
        updates, state = tx.update(grads, state, params, **known)
        return optax.apply_updates(params, updates), state

    return tx, step


def shapes_of(x):
    return jax.eval_shape(lambda x: jax.tree.map(jnp.asarray, x), x)


slow = pytest.mark.slow
DEEP = [name for name in SOLVERS if name not in PLAIN]
# A wrapper cannot tell what its solver is made of, so few pairs show the law; all of them are slow.
SOME = [(name, w) for name in PLAIN for w in WRAPPERS] + [(name, "two") for name in DEEP]
ALL = [(name, wrapper) for name in SOLVERS for wrapper in WRAPPERS]


@pytest.mark.quick(16)
@pytest.mark.parametrize(("name", "wrapper"), SOME)
def test_a_memory_keeps_its_shape(x64, name, wrapper):
    solver, curvature = wrapped(name, wrapper), curvature_of(name)

    def trial(params, memory, state):
        grads = jax.grad(VALLEY)(params)
        scale = jnp.ones(())
        op, _ = curvature.at(grads, state, params, VALLEY, scale)
        model = so.Quadratic(grads, op)
        factors, prepared, _ = solver.prepare(model, memory)
        step, solved = solver.solve(model, factors, prepared, scale)
        length = solver.measure(factors, prepared, step.direction)
        return prepared, solved, solver.remember(solved, step.direction), length

    params = shapes_of(START)
    memory, state = jax.eval_shape(lambda p: (solver.init(p), curvature.init(p)), params)
    *memories, length = jax.eval_shape(trial, params, memory, state)
    assert memories == [memory] * 3
    assert length.shape == ()


@slow
@pytest.mark.parametrize(("name", "wrapper"), ALL)
def test_every_wrapper_takes_every_solver(x64, name, wrapper):
    tx, step = trained(name, wrapper)
    params = shapes_of(START)
    state = jax.eval_shape(tx.init, params)
    assert jax.eval_shape(step, params, state) == (params, state)
    assert state.point is None  # nothing is kept of a batch that may not come again
    jax.eval_shape(solve(name, wrapper), params)  # a scan, which refuses a state that changes


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("name", "wrapper"),
    [
        ("direct", "nothing"),
        ("gltr", "nothing"),
        pytest.param("svd", "nothing", marks=slow),
        ("sample_space", "nothing"),
        pytest.param("sample_space(direct)", "nothing", marks=slow),
        ("block_diagonal(sample_space)", "nothing"),
        ("qr", "momentum"),
        pytest.param("direct", "grafted", marks=slow),
        pytest.param("gltr", "two", marks=slow),
        pytest.param("eigen", "optimal_scaling", marks=slow),
        pytest.param("eigen", "nothing", marks=slow),
        pytest.param("exact_region", "nothing", marks=slow),
        pytest.param("exact_cubic", "nothing", marks=slow),
        pytest.param("krylov_cubic", "nothing", marks=slow),
        pytest.param("qr", "nothing", marks=slow),
        pytest.param("svd_region", "nothing", marks=slow),
        pytest.param("dogleg", "nothing", marks=slow),
        pytest.param("hybrid_region", "nothing", marks=slow),
        pytest.param("sample_space(eigen)", "nothing", marks=slow),
        pytest.param("block_diagonal(direct)", "nothing", marks=slow),
    ],
)
def test_a_second_trial_at_a_point_pays_nothing(x64, name, wrapper):
    _, (products, jacobians, accepted, _) = jax.jit(solve(name, wrapper))(START)
    again = ~np.asarray(accepted)[:-1]
    assert again.any() and not again.all(), accepted
    own = 1 if wrapper == "optimal_scaling" else 0  # the wrapper's product depends on the scalar
    np.testing.assert_array_equal(products[1:][again], own)
    np.testing.assert_array_equal(jacobians[1:][again], 0)
    assert np.all(products[1:][~again] > own)


def test_a_second_trial_runs_no_product(x64):
    ran = []

    def counted(grads, state, params, value_fn):
        matrix = jax.hessian(value_fn)(params)

        def product(v):
            jax.debug.callback(ran.append, v[0])
            return matrix @ v

        return so.operators.Function(product, params), state

    f = lambda p: 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
    curvature = so.curvature.Curvature(lambda p: (), counted)
    tx = so.scale_by_curvature(curvature, so.solvers.direct(), so.trust.damping(1e-8))
    start = jnp.array([-1.2, 1.0])
    build, theta = opened(f, start)
    problem = Problem(build(theta), optax.with_extra_args_support(tx), 1e-8, 100)
    turn, loop = jax.jit(functools.partial(once, problem)), begin(problem, start, 0)
    ran.clear()
    products = {True: set(), False: set()}
    for _ in range(10):
        before = loop.state.trust.accepted.item()
        loop = jax.block_until_ready(turn(loop))
        jax.effects_barrier()
        products[before].add(len(ran))
        ran.clear()
    assert products == {True: {2}, False: {0}}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["sample_space", "gltr", "qr"])
def test_an_average_of_one_gradient_is_the_gradient(x64, monkeypatch, name):
    monkeypatch.setitem(WRAPPERS, "last", lambda solver: so.solvers.momentum(solver, 0.0))
    bare, wrapped = (jax.jit(solve(name, w))(START)[1] for w in ("nothing", "last"))
    near = functools.partial(np.testing.assert_allclose, rtol=rounding(1e4))
    jax.tree.map(near, wrapped, bare)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wrapper"), [("gltr", "optimal_scaling"), ("qr", "optimal_scaling"), ("direct", "two")]
)
def test_a_wrapped_solver_ends_at_the_minimum_or_claims_nothing(x64, name, wrapper):
    found = jax.jit(lambda p: so.minimize(VALLEY, p, method(name, wrapper), max_steps=100))(START)
    known = jax.jit(lambda p: so.least_squares(residual, p))(START)
    assert found.success or wrapper == "two"
    if found.success:
        np.testing.assert_allclose(found.value, known.value, rtol=1e-6)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "name", ["clipped", "dogleg", "exact_cubic", "exact_region", "gltr", "steihaug", "svd_region"]
)
def test_a_direction_is_measured_as_the_step_was(x64, name):
    solver, curvature = SOLVERS[name], curvature_of(name)
    params = jax.tree.map(lambda x: jnp.array([1.0, 1e3])[: x.size].reshape(x.shape), START)

    @jax.jit
    def measured(params):
        grads = jax.grad(VALLEY)(params)
        op, _ = curvature.at(grads, curvature.init(params), params, VALLEY, jnp.ones(()))
        model, scale = so.Quadratic(grads, op), jnp.asarray(3.0)
        _, memory = solver.update(model, solver.init(params), scale)  # which has seen the units
        factors, memory, _ = solver.prepare(model, memory)
        step, _ = solver.solve(model, factors, memory, scale)
        half = so.tree.scale(0.5, step.direction)
        return step.length, *(solver.measure(factors, memory, d) for d in (step.direction, half))

    length, whole, half = measured(params)
    tolerance = rounding(1e3, float(length))
    np.testing.assert_allclose([whole, 2 * half], length, atol=tolerance, rtol=0)


def test_a_mean_of_nothing_is_no_optimum(x64):
    slow_mean = so.solvers.momentum(so.solvers.qr(), 1 - 1e-12, debias=False)
    tx = so.scale_by_curvature(so.exact(so.ggn), slow_mean, so.trust.damping())
    found = jax.jit(lambda p: so.minimize(VALLEY, p, tx, max_steps=30))(START)
    assert not found.success


@pytest.mark.slow
def test_a_burn_in_leaves_room_for_factors(x64, monkeypatch):
    late = functools.partial(so.scale_by_curvature, burn_in=2)
    monkeypatch.setattr(so, "scale_by_curvature", late)
    _, (products, *_, params) = jax.jit(solve("qr", "nothing"))(START)
    assert np.all(products[:3] > 0)
    np.testing.assert_array_equal(params["b"]["w"][:2], START["b"]["w"])
