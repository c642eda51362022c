"""What is right on one device is right on eight, with automatic axes and with explicit ones."""

import functools

import jax
import jax.numpy as jnp
import optax
import oracles
import problems
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tolerances import rounding

import secondorder as so

TIMES = jnp.linspace(0.0, 2.0, 16)
INPUTS, TARGETS = problems.draw(0, 16, 3), problems.draw(1, 16, 2)
NETWORK = {"a": 0.5 * problems.draw(2, 3, 4), "b": 0.5 * problems.draw(3, 4, 2), "c": jnp.zeros(2)}
SPREAD = {"v": 0.3 * problems.draw(4, 2, 8), "w": 0.3 * problems.draw(5, 8)}
SPECS = {"v": P(None, "devices"), "w": P("devices")}
ROWS = P("devices")


def curve(p, t):
    return p[0] * jnp.exp(-p[1] * t)


def network(p, x):
    return jnp.tanh(x @ p["a"]) @ p["b"] + p["c"]


def bowl(p):
    halves = jnp.sum(jnp.cosh(p["w"])), jnp.sum(jnp.cosh(p["v"] - 0.5))
    return sum(halves) + 0.01 * jnp.sum(p["w"]) * jnp.sum(p["v"])


def residuals(p):
    return {"w": jnp.exp(p["w"]) - 1.5, "v": p["v"] ** 2 + p["v"] + 0.1 * jnp.sum(p["w"])}


def curve_fit(t, y, **options):
    fit = so.curve_fit(curve, t, y, jnp.ones(2), **options)
    return fit.params, fit.standard_errors


def least_squares(t, y, method=None, **options):
    method = method and getattr(so, method)()
    residual = lambda p: curve(p, t) - y
    return so.least_squares(residual, jnp.ones(2), method, max_steps=6, **options).params


def of_network(of, x, y):
    return of(so.compose(so.squared_error(y), lambda p: network(p, x)), NETWORK)


def of_examples(x, y):
    objective = so.per_example(so.squared_error(y), network, x)
    return so.minimize(objective, NETWORK, so.levenberg_marquardt(), max_steps=2).params


def of_chunks(size, x, y):
    one = lambda b: so.compose(so.squared_error(b["y"]), lambda p: network(p, b["x"]))
    objective = so.chunked(one, {"x": x, "y": y}, chunk_size=size)
    return jax.grad(objective)(NETWORK), so.dense(so.ggn(objective, NETWORK), NETWORK)


def spread(solve, objective, method, p, **options):
    method = method and getattr(so, method)()
    return solve(objective, p, method, max_steps=3, **options).params


def system(method, p):
    return so.solve(so.hessian(bowl, p), p, 0.1, method=method).solution


def reading(instrument, p):
    return instrument(so.hessian(bowl, p), p, jax.random.key(0))[0]


BATCH = {
    "curve_fit": curve_fit,
    "curve_fit, covariance": lambda t, y: curve_fit(t, y, sigma=2 * jnp.eye(t.size)),
    "curve_fit, bounds": functools.partial(curve_fit, bounds=(0.0, 2.0)),
    "least_squares": least_squares,
    "least_squares, huber": functools.partial(least_squares, loss=so.huber(0.1)),
    "least_squares, bounds": functools.partial(least_squares, bounds=(0.0, 2.0)),
    **{
        f"least_squares, {name}": functools.partial(least_squares, method=name)
        for name in ("gauss_newton", "dogleg", "hybrid_newton", "natural_gradient")
    },
}
EXAMPLES = {
    "dense ggn": functools.partial(of_network, lambda f, p: so.dense(so.ggn(f, p), p)),
    "dense Fisher": functools.partial(
        of_network, lambda f, p: so.dense(so.fisher(f, p, jax.random.key(0)), p)
    ),
    "empirical Fisher": functools.partial(
        of_network, lambda f, p: so.dense(so.empirical_fisher(f, p), p)
    ),
    "plain loss": lambda x, y: (
        so.minimize(
            so.compose(lambda z: jnp.sum(jnp.cosh(z - y)), lambda p: network(p, x)),
            NETWORK,
            so.levenberg_marquardt(),
            max_steps=2,
        ).params
    ),
    "examples": of_examples,
    "even chunks": functools.partial(of_chunks, 8),
    "uneven chunks": functools.partial(of_chunks, 6),
}
PARAMETERS = {
    **{
        f"minimize, {name or 'default'}": functools.partial(spread, so.minimize, bowl, name)
        for name in (
            None,
            "newton",
            "newton_cg",
            "cubic_newton",
            "trust_region_newton",
            "bfgs",
            "ssbroyden",
            "lbfgs",
            "sr1",
            "gradient_descent",
        )
    },
    "minimize, bounds": functools.partial(spread, so.minimize, bowl, None, bounds=(-0.2, 0.2)),
    **{
        f"least_squares, {name or 'default'}": functools.partial(
            spread, so.least_squares, residuals, name
        )
        for name in (None, "gauss_newton", "dogleg", "hybrid_newton", "natural_gradient")
    },
    **{
        instrument.__name__: functools.partial(reading, instrument)
        for instrument in (
            so.trace,
            so.diagonal,
            so.top_eigenpairs,
            so.condition_number,
            so.logdet,
            so.spectral_density,
        )
    },
    "dense": lambda p: so.dense(so.hessian(bowl, p), p),
    **{f"solve, {name}": functools.partial(system, name) for name in ("dense", "cg", "minres")},
    "jacobian": lambda p: so.jacobian(residuals, p),
    "jacobian by chunks": lambda p: so.jacobian(residuals, p, chunk_size=8),
}
# The sums of eight shares are rounded otherwise, and a solve multiplies that by its condition.
LIMIT = rounding(1e4, 10)
CALLS = {
    **{
        f"batch: {name}": (fn, (TIMES, 3 * curve([1, 1.5], TIMES)), ROWS)
        for name, fn in BATCH.items()
    },
    **{f"batch: {name}": (fn, (INPUTS, TARGETS), ROWS) for name, fn in EXAMPLES.items()},
    **{f"parameters: {name}": (fn, (SPREAD,), SPECS) for name, fn in PARAMETERS.items()},
}


def on_mesh(axis_type, arrays, specs):
    if jax.device_count() < 8:
        pytest.skip("needs the eight CPU devices of conftest.py")
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(axis_type,))
    of = lambda x, spec: jax.device_put(jnp.asarray(x, float), NamedSharding(mesh, spec))
    return mesh, tuple(jax.tree.map(of, x, specs) for x in arrays)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_a_call_on_eight_devices_finds_what_it_finds_on_one(axis_type, name, x64):
    call, arrays, specs = CALLS[name]
    jitted = jax.jit(call)
    alone = oracles.flat(jitted(*jax.tree.map(lambda x: jnp.asarray(x, float), arrays)))
    mesh, spread = on_mesh(axis_type, arrays, specs)
    with jax.set_mesh(mesh):
        for found in (call(*spread), jitted(*spread)):
            assert oracles.relative_error(oracles.flat(found), alone) < LIMIT


@pytest.mark.quick(1)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_each_device_fits_its_own_data_sets(axis_type, x64):
    data = curve(jnp.array([1.5, 0.7]), TIMES) + 0.1 * problems.draw(10, 16, 16)
    fits = jax.vmap(lambda y: so.curve_fit(curve, TIMES, y, jnp.ones(2)).params)
    alone = jax.jit(fits)(data)
    mesh, (spread,) = on_mesh(axis_type, (data,), ROWS)
    with jax.set_mesh(mesh):
        shared = jax.shard_map(fits, mesh=mesh, in_specs=ROWS, out_specs=ROWS, check_vma=False)
        found = jax.jit(shared)(spread)
    assert len(found.sharding.device_set) == 8
    assert oracles.relative_error(oracles.flat(found), oracles.flat(alone)) < LIMIT


WHOLE, HALVES = P(None, None), P("devices", None)
PLACES = {
    "one device": None,
    "batch, automatic": (AxisType.Auto, WHOLE),
    "batch, explicit": (AxisType.Explicit, WHOLE),
    "parameters, automatic": (AxisType.Auto, HALVES),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    "name", ["kfac", "ekfac", "soap", "kl_shampoo", "shampoo", "sophia", "adahessian"]
)
@pytest.mark.parametrize("place", PLACES)
def test_a_jitted_step_is_compiled_once(place, name):
    params = {"a": 0.3 * problems.draw(6, 8, 16), "b": 0.3 * problems.draw(7, 16, 8)}
    data = problems.draw(8, 16, 8), problems.draw(9, 16, 8)

    def objective(x, y):
        return so.compose(so.squared_error(y), lambda p: jnp.tanh(x @ p["a"]) @ p["b"])

    known = {"example": objective(*data)} if name in ("kfac", "ekfac") else {"learning_rate": 0.03}
    optimizer = getattr(so, name)(**known)

    @jax.jit
    def step(params, state, data):
        fn = objective(*data)
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return optax.apply_updates(params, updates), state

    def steps(params, data):
        state = optimizer.init(params)
        for _ in range(4):
            params, state = step(params, state, data)
        assert step._cache_size() == 1

    if PLACES[place] is None:
        return steps(params, data)
    axis_type, spec = PLACES[place]
    mesh, (params,) = on_mesh(axis_type, (params,), {"a": spec, "b": spec})
    with jax.set_mesh(mesh):
        steps(params, jax.device_put(data, NamedSharding(mesh, HALVES)))
