"""JAX' debugging flags: all that is public runs under each of them."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from cases import with_slow
from contract.problems import batch, logistic, logistic_start
from contract.steps import Outcome, Trainer, training_step
from contract.table import METHODS, REPRESENTATIVES, rows_of_kinds

import secondorder as so


@contextlib.contextmanager
def as_written():
    """No implicit promotion of dtypes or ranks."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def classes(data) -> so.Objective:
    """The logistic regression, without its wall of NaN."""
    return so.compose(so.sigmoid_cross_entropy(data["y"]), lambda p: data["x"] @ p["w"] + p["b"])


def one_step(name, dtype="float32") -> Outcome:
    data, params = batch(dtype), logistic_start(dtype)
    shown = {"example": lambda p: classes(data)} if "example" in METHODS[name].options else {}
    tx = METHODS[name].make(**shown)
    return training_step(tx, classes)(params, tx.init(params), data)


# Half precision takes other paths, of casts; and x64 other integers.
CASES = [
    *((name, "float32") for name in METHODS),
    *((name, dtype) for name in REPRESENTATIVES for dtype in ("bfloat16", "float64")),
]


@pytest.mark.quick(12)
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_step_needs_no_promotion(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        with as_written():
            jax.eval_shape(lambda: one_step(name, dtype))


@rows_of_kinds()
def test_compiled_steps_hand_over_no_nan(name):
    # A program of its own: under this flag JAX compiles without donation.
    with jax.debug_nans(True):
        Trainer(name, logistic).run(logistic_start(), batch(), 2)


def some(names, quick):
    """A test over the names, slow but for the quick ones."""
    return pytest.mark.parametrize(("name",), with_slow(names, lambda name: name in quick))


@pytest.mark.slow
@some(METHODS, ("soap",))
def test_steps_that_are_not_compiled_have_no_nan_in_between(name):
    with jax.debug_nans(True), jax.disable_jit():
        one_step(name)


START, KEY = {"b": jnp.array(0.4), "w": jnp.array([0.2, -0.1])}, jax.random.key(0)
X = jnp.linspace(0.0, 1.0, 8)
Y = jnp.exp(-X) + 0.01 * jnp.cos(40 * X)


def curve(p, x):
    return p["b"] + p["w"][0] * jnp.exp(p["w"][1] * x)


def affine(p, x):
    return p["b"] + p["w"][0] * x + p["w"][1] * x**2


def fit(model=curve, **options):
    found = so.curve_fit(model, X, Y, START, max_steps=3, **options)
    return found, found.confidence_intervals(), found.prediction_errors(model, X)


def separable():
    return fit(separable={"b": True, "w": False})


def residual(p):
    return curve(p, X) - Y


def split(p, x):
    return jnp.stack([p["b"] + p["w"] @ x])


def in_chunks() -> so.Objective:
    parts = {"x": batch()["x"], "y": batch()["y"]}
    return so.chunked(classes, parts, chunk_size=4)


def scores(p, x):
    return jnp.stack([p["b"] + p["w"] @ x, jnp.zeros((), x.dtype)], -1)


def labels_of():
    return so.softmax_cross_entropy(batch()["y"].astype(jnp.int32))


def labelled():
    inputs = batch()["x"]
    return so.compose(labels_of(), lambda p: jax.vmap(functools.partial(scores, p))(inputs))


def an_update(objective):
    opt = so.newton_cg()
    grads = jax.grad(objective)(START)
    return opt.update(grads, opt.init(START), START, value_fn=objective)


def operator():
    return so.ggn(classes(batch()), START)


def minimum(t):
    return so.minimize(lambda p: jnp.sum((p - t) ** 4 + (p - t) ** 2), jnp.zeros(2)).params


BOX, HALVES = (-0.5, 0.5), {"max_steps": 2, "history": 3}

PARTS = {
    "minimize": lambda: so.minimize(classes(batch()), START, **HALVES),
    "minimize with labels": lambda: so.minimize(labelled(), START, **HALVES),
    "minimize with labels per example": lambda: so.minimize(
        so.per_example(labels_of(), scores, batch()["x"]), START, **HALVES
    ),
    "minimize in a box": lambda: so.minimize(classes(batch()), START, bounds=BOX, **HALVES),
    "minimize by products": lambda: so.minimize(classes(batch()), START, so.newton_cg(), **HALVES),
    "minimize by a search": lambda: so.minimize(classes(batch()), START, so.bfgs(), **HALVES),
    "minimize by Optax": lambda: so.minimize(classes(batch()), START, optax.sgd(0.1), **HALVES),
    "a derivative of a solution": lambda: jax.jacobian(minimum)(1.0),
    "least_squares": lambda: so.least_squares(residual, START, **HALVES),
    "least_squares in a box": lambda: so.least_squares(residual, START, bounds=BOX, **HALVES),
    "least_squares of huber": lambda: so.least_squares(residual, START, loss=so.huber(0.1)),
    "curve_fit": fit,
    "curve_fit of a line": lambda: fit(affine),
    "curve_fit in a box": lambda: fit(bounds=BOX),
    "curve_fit with sigma": lambda: fit(sigma=jnp.full(8, 0.1), absolute_sigma=True),
    "curve_fit with a covariance": lambda: fit(sigma=0.1 * jnp.eye(8)),
    "curve_fit, separable": separable,
    "trace": lambda: so.trace(operator(), START, KEY, samples=1),
    "diagonal": lambda: so.diagonal(operator(), START, KEY, samples=2),
    "top_eigenpairs": lambda: so.top_eigenpairs(operator(), START, KEY, 2),
    "condition_number": lambda: so.condition_number(operator(), START, KEY),
    "condition_number of nothing": lambda: so.condition_number(0.0 * operator(), START, KEY),
    "logdet": lambda: so.logdet(operator(), START, KEY, damping=1.0, samples=2),
    "spectral_density": lambda: so.spectral_density(operator(), START, KEY, samples=1, points=8),
    "solve, dense": lambda: so.solve(operator(), START, 0.1),
    "solve, cg": lambda: so.solve(operator(), START, 0.1, method="cg"),
    "solve, minres": lambda: so.solve(operator(), START, 0.1, method="minres"),
    "hessian": lambda: so.dense(so.hessian(classes(batch()), START), START),
    "ggn": lambda: so.dense(operator(), START),
    "fisher": lambda: so.dense(so.fisher(classes(batch()), START, KEY, samples=2), START),
    "hvp": lambda: so.hvp(classes(batch()), START, START),
    "ggnvp": lambda: so.ggnvp(classes(batch()), START, START),
    "jacobian": lambda: so.jacobian(residual, START),
    "chunked": lambda: an_update(in_chunks()),
    "with_curvature": lambda: an_update(so.with_curvature(classes(batch()), in_chunks())),
    "restrict": lambda: so.restrict(classes(batch()), START)(START),
    "labels": lambda: jax.grad(so.softmax_cross_entropy(jnp.array([0, 1])))(jnp.ones((2, 2))),
    "per_example": lambda: an_update(
        so.per_example(so.squared_error(batch()["y"][:, None]), split, batch()["x"])
    ),
}
QUICK = ("minimize", "top_eigenpairs", "per_example", "with_curvature")
LEAKY = (
    "minimize",
    "minimize with labels",
    "minimize with labels per example",
    "least_squares in a box",
    "curve_fit",
    "chunked",
)


@pytest.mark.quick(8)
@pytest.mark.parametrize("name", PARTS)
def test_a_part_needs_no_promotion(name):
    with as_written():
        jax.eval_shape(lambda: jax.tree.leaves(PARTS[name]()))


@pytest.mark.slow
@some(LEAKY, ("minimize",))
def test_a_solve_leaks_no_tracer(name):
    with jax.checking_leaks():
        jax.eval_shape(lambda: jax.tree.leaves(PARTS[name]()))


@some(REPRESENTATIVES, ("newton_cg", "natural_gradient", "kfac"))
def test_a_step_leaks_no_tracer(name):
    with jax.checking_leaks():
        jax.eval_shape(lambda: one_step(name))


@pytest.mark.quick(1)
@some(PARTS, QUICK)
def test_a_part_has_no_nan(name):
    with jax.debug_nans(True):
        PARTS[name]()


@pytest.mark.quick(1)
@some(PARTS, ("trace", "jacobian"))
def test_a_part_runs_in_python(name):
    with jax.debug_nans(True), jax.disable_jit():
        PARTS[name]()
