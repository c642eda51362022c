"""Every method × every rule of the Optax contract: one table, and each rule a test over its rows.

A new method is one more row of ``METHODS``. Compiling is where the time goes, so one compiled
training step per method and dtype serves as many tests as can share it, and what tracing alone can
show is only traced.
"""

import functools
import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import secondorder as so
from secondorder.solvers import Stop

# ---------------------------------------------------------------------------------------------
# The table


class Method(NamedTuple):
    """A row of the table.

    Attributes:
      factory: the method; called with ``options``.
      options: its arguments, as written here. Injected as hyperparameters they change nothing.
      live: those among them that may be schedules, and that are read anew at every step.
      parabola, rosenbrock, logistic: within how many steps it solves them; 0 where the method
        makes no such claim.
      flags: how it reports indefinite curvature; empty where its curvature cannot be indefinite.
      closed_loop: whether it evaluates its step, and rejects one that does not descend.
      plain: whether a plain function serves as ``value_fn``, without the split in loss and model.
      matrix_free: whether it runs on explicitly sharded parameters.
      by_leaf: whether what it keeps or draws belongs to single leaves, so that the same numbers in
        another tree are another step.
      gradients_alone: whether ``value_fn`` may be left out.
      dtypes: the parameters' dtypes that it supports.
    """

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    options: Mapping[str, Any] = {}
    live: tuple[str, ...] = ()
    parabola: int = 0
    rosenbrock: int = 0
    logistic: int = 0
    flags: frozenset = frozenset()
    closed_loop: bool = False
    plain: bool = False
    matrix_free: bool = False
    by_leaf: bool = False
    gradients_alone: bool = False
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")

    def make(self, **changed) -> optax.GradientTransformationExtraArgs:
        return self.factory(**{**self.options, **changed})


def damped_newton(damping):
    return so.scale_by_curvature(
        so.exact(so.hessian), so.solvers.direct(), so.trust.damping(damping)
    )


def levenberg_marquardt_cg(damping):
    return so.scale_by_curvature(so.exact(so.ggn), so.solvers.cg(), so.trust.damping(damping))


def sampled_natural_gradient(damping):
    fisher = so.exact(so.fisher, seed=0, samples=4)
    return so.scale_by_curvature(fisher, so.solvers.cg(), so.trust.damping(damping))


def natural_gradient_by_gain_ratio(damping, momentum):
    return so.natural_gradient(damping=damping, momentum=momentum, search=False)


def adam_scaled_by_the_quadratic_model(damping):
    return so.scale_by_quadratic_model(optax.scale_by_adam(), damping)


def sophia_of_the_hessian(learning_rate, gamma):
    return so.sophia(learning_rate, gamma=gamma, estimator=so.curvature.hutchinson())


def shampoo_of_bases(learning_rate):
    return so.shampoo(learning_rate, eigen=True)


def example_of(params) -> so.Objective:
    """An objective of such parameters: it shows layer-wise methods how they are used."""
    data = batch()
    if isinstance(params, dict) and set(params) == {"b", "w"}:
        return so.restrict(logistic(data), HELD)
    if isinstance(params, dict) and set(params) == {"w"}:
        return so.sum_of_squares(lambda p: jnp.exp(p["w"]))
    if hasattr(params, "shape"):
        whole = logistic(data)
        return so.compose(whole.loss, lambda w: whole.model({"b": HELD["b"], "w": w}))
    for _, known, apply in modules():
        if jax.tree.structure(known) == jax.tree.structure(params):
            loss = so.sigmoid_cross_entropy(data["y"][:, None])
            return so.per_example(loss, apply, data["x"])
    return affine(params)


def hessian_free_of_whole_steps(damping):
    return so.hessian_free(damping, backtrack=0, halvings=0)


def hessian_free_preconditioned_by_layers(damping, example):
    return so.hessian_free(damping, preconditioner=so.curvature.layerwise(example))


def layerwise_prox_linear(damping):
    solver = so.solvers.prox_linear(so.solvers.cg(10))
    return so.layerwise_gauss_newton(damping, solver=solver, layer_of=so.operators.apart)


SHIFTED = frozenset({Stop.SHIFTED})
# A solver of a region uses negative curvature instead of repairing it, up to the boundary.
NEGATIVE = frozenset({Stop.NEGATIVE_CURVATURE, Stop.BOUNDARY})

METHODS = {
    "gradient_descent": Method(
        so.gradient_descent, parabola=14, logistic=50, plain=True
    ),
    "gradient_descent_of_a_fixed_rate": Method(
        so.gradient_descent, {"learning_rate": 0.5}, live=("learning_rate",),
        parabola=15, logistic=260, plain=True, matrix_free=True,
    ),
    "newton": Method(
        so.newton, {"damping": 1e-3}, live=("damping",),
        parabola=3, rosenbrock=26, logistic=6, flags=SHIFTED, plain=True,
    ),
    "newton_of_a_fixed_rate": Method(
        so.newton, {"learning_rate": 1.0, "damping": 1e-3}, live=("learning_rate", "damping"),
        parabola=3, rosenbrock=10, logistic=6, flags=SHIFTED, plain=True,
    ),
    "newton_with_adapted_damping": Method(
        damped_newton, {"damping": 1e-3},
        parabola=3, rosenbrock=42, logistic=6, flags=SHIFTED, closed_loop=True, plain=True,
    ),
    "newton_cg": Method(
        so.newton_cg, {"initial_radius": 10.0},
        parabola=3, rosenbrock=50, logistic=6,
        flags=NEGATIVE, closed_loop=True, plain=True, matrix_free=True,
    ),
    "trust_region_newton": Method(
        so.trust_region_newton, {"initial_radius": 10.0},
        parabola=2, rosenbrock=36, logistic=6, flags=NEGATIVE, closed_loop=True, plain=True,
    ),
    "cubic_newton": Method(
        so.cubic_newton, {"initial_weight": 1.0},
        parabola=6, rosenbrock=33, logistic=8, flags=NEGATIVE, closed_loop=True, plain=True,
    ),
    "bfgs": Method(so.bfgs, parabola=6, rosenbrock=48, logistic=10, plain=True),
    "lbfgs": Method(so.lbfgs, parabola=6, rosenbrock=47, logistic=9, plain=True),
    "sr1": Method(
        so.sr1, {"initial_radius": 10.0},
        parabola=6, rosenbrock=110, logistic=12, closed_loop=True, plain=True,
    ),
    "dogleg": Method(
        so.dogleg, {"initial_radius": 10.0},
        parabola=2, rosenbrock=21, logistic=6, closed_loop=True,
    ),
    "gauss_newton": Method(so.gauss_newton, parabola=2, rosenbrock=16, logistic=6),
    "gauss_newton_of_a_fixed_rate": Method(
        so.gauss_newton, {"learning_rate": 1.0}, live=("learning_rate",),
        parabola=2, rosenbrock=3, logistic=6,
    ),
    "hybrid_newton": Method(
        so.hybrid_newton, {"initial_radius": 10.0},
        parabola=2, rosenbrock=36, logistic=6, closed_loop=True,
    ),
    "levenberg_marquardt": Method(
        so.levenberg_marquardt, parabola=2, rosenbrock=7, logistic=6, closed_loop=True
    ),
    "levenberg_marquardt_of_a_given_damping": Method(
        so.levenberg_marquardt, {"damping": 1e-3},
        parabola=3, rosenbrock=22, logistic=6, closed_loop=True,
    ),
    "levenberg_marquardt_by_cg": Method(
        levenberg_marquardt_cg, {"damping": 1e-3},
        parabola=3, rosenbrock=27, logistic=6, closed_loop=True, matrix_free=True,
    ),
    "hessian_free": Method(
        so.hessian_free, {"damping": 0.1},
        parabola=8, rosenbrock=28, logistic=15, matrix_free=True,
    ),
    "hessian_free_of_whole_steps": Method(
        hessian_free_of_whole_steps, {"damping": 0.1},
        parabola=8, rosenbrock=26, logistic=15, closed_loop=True, matrix_free=True,
    ),
    "hessian_free_preconditioned_by_layers": Method(
        hessian_free_preconditioned_by_layers, {"damping": 0.1, "example": example_of},
        parabola=8, rosenbrock=26, logistic=15, matrix_free=True, by_leaf=True,
    ),
    "layerwise_gauss_newton": Method(
        so.layerwise_gauss_newton, {"damping": 1e-3},
        parabola=10, rosenbrock=40, logistic=20, matrix_free=True, by_leaf=True,
    ),
    "layerwise_prox_linear": Method(
        layerwise_prox_linear, {"damping": 1e-3},
        parabola=10, rosenbrock=40, logistic=20, matrix_free=True, by_leaf=True,
    ),
    "natural_gradient": Method(
        so.natural_gradient, {"damping": 1e-5},
        parabola=8, rosenbrock=40, logistic=20,
    ),
    "natural_gradient_by_gain_ratio": Method(
        natural_gradient_by_gain_ratio, {"damping": 1e-3, "momentum": 0.5},
        parabola=20, rosenbrock=60, logistic=20, closed_loop=True,
    ),
    "natural_gradient_of_a_fixed_rate": Method(
        so.natural_gradient, {"learning_rate": 1.0, "damping": 1e-3, "momentum": 0.0},
        live=("learning_rate", "damping"), parabola=5, rosenbrock=20, logistic=10,
    ),
    "adam_scaled_by_the_quadratic_model": Method(
        adam_scaled_by_the_quadratic_model, {"damping": 1e-2},
        parabola=20, logistic=25, closed_loop=True, matrix_free=True,
    ),
    "sampled_natural_gradient": Method(
        sampled_natural_gradient, {"damping": 1e-1},
        parabola=15, rosenbrock=70, logistic=16, closed_loop=True, matrix_free=True,
    ),
    "sophia": Method(
        so.sophia, {"learning_rate": 0.1}, live=("learning_rate",),
        logistic=330, matrix_free=True,
    ),
    "sophia_of_the_hessian": Method(
        sophia_of_the_hessian, {"learning_rate": 0.1, "gamma": 1.0}, live=("learning_rate",),
        logistic=250, plain=True, matrix_free=True, by_leaf=True,
    ),
    "adahessian": Method(
        so.adahessian, {"learning_rate": 0.5}, live=("learning_rate",),
        parabola=145, logistic=95, plain=True, matrix_free=True, by_leaf=True,
    ),
    "soap": Method(
        so.soap, {"learning_rate": 0.1}, live=("learning_rate",),
        logistic=250, plain=True, matrix_free=True, by_leaf=True, gradients_alone=True,
    ),
    "shampoo": Method(
        so.shampoo, {"learning_rate": 1.0}, live=("learning_rate",),
        parabola=150, logistic=95,
        plain=True, matrix_free=True, by_leaf=True, gradients_alone=True,
    ),
    "shampoo_of_bases": Method(
        shampoo_of_bases, {"learning_rate": 1.0}, live=("learning_rate",),
        parabola=150, logistic=95,
        plain=True, matrix_free=True, by_leaf=True, gradients_alone=True,
    ),
    "kfac": Method(
        so.kfac, {"damping": 0.1, "example": example_of}, logistic=12,
        closed_loop=True, matrix_free=True, by_leaf=True,
    ),
    "kfac_of_a_given_rate": Method(
        so.kfac, {"learning_rate": 0.1, "damping": 0.1, "refresh": 1, "example": example_of},
        live=("learning_rate", "damping"), logistic=220, matrix_free=True, by_leaf=True,
    ),
    "ekfac": Method(
        so.ekfac, {"damping": 0.1, "example": example_of}, logistic=12,
        closed_loop=True, matrix_free=True, by_leaf=True,
    ),
}  # fmt: skip


def rows(condition=lambda method: True):
    """A test over the rows of the table for which the condition holds, one method after another."""
    names = [name for name, method in METHODS.items() if condition(method)]
    return pytest.mark.parametrize("name", names, scope="module")


def test_every_method_has_a_row():
    rows = {method.factory for method in METHODS.values()}
    rows |= {so.scale_by_quadratic_model}  # takes a transformation: its row is of Adam's
    assert [name for name in so.methods.__all__ if getattr(so, name) not in rows] == []


# ---------------------------------------------------------------------------------------------
# The problems, small as they come


def batch(dtype="float32", wall=jnp.inf):
    """Eight labelled points that no line separates; beyond the wall the model is NaN."""
    x = jnp.array([[0.5, 1], [-1, 0.3], [1.5, -1], [-0.5, -1.5], [1, 1], [-1, 1], [0.2, 2], [2, 0]])
    y = jnp.array([1, 0, 1, 0, 0, 0, 1, 1])
    return {"x": x.astype(dtype), "y": y.astype(dtype), "wall": jnp.asarray(wall, dtype)}


def logistic(data) -> so.Objective:
    """Logistic regression: convex, of three parameters."""

    def model(p):
        logits = data["x"] @ p["w"] + p["b"]
        return jnp.where(p["w"] @ p["w"] + p["b"] ** 2 > data["wall"], jnp.nan, logits)

    return so.compose(so.sigmoid_cross_entropy(data["y"]), model)


def logistic_start(dtype="float32"):
    return {"b": jnp.zeros((), dtype), "w": jnp.zeros(2, dtype)}


def valley(theta) -> so.Objective:
    """Rosenbrock's valley for theta = (10, 1), a parabola for (1.2, 0)."""
    steep, bend = theta
    return so.sum_of_squares(lambda p: jnp.stack([steep * (p[1] - bend * p[0] ** 2), 1 - p[0]]))


def affine(params) -> so.Objective:
    """A least-squares problem on a tree of any shape; the same one for the same joined vector."""
    features = jnp.sin(1.0 + jnp.arange(3 * so.tree.size(params))).reshape(3, -1)
    return so.compose(so.squared_error(jnp.array([1.0, -2.0, 0.5])), lambda p: features @ _join(p))


def _join(params):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])


class Outcome(NamedTuple):
    params: Any
    state: Any
    updates: Any
    grads: Any
    value: jax.Array


def training_step(tx, objective: Callable = logistic) -> Callable:
    """``(params, state, data) -> Outcome``, as a user writes it."""

    def step(params, state, data):
        value_fn = objective(data)
        value, grads = jax.value_and_grad(value_fn)(params)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=value_fn)
        return Outcome(optax.apply_updates(params, updates), state, updates, grads, value)

    return step


class Trainer:
    """A method with its compiled training step, which donates parameters and state."""

    def __init__(self, name: str, objective: Callable):
        shown = "example" in METHODS[name].options and objective is valley
        self.tx = METHODS[name].make(**{"example": lambda p: valley((1.2, 0.0))} if shown else {})
        self.traces = 0
        step = training_step(self.tx, objective)

        def counted(params, state, data):
            self.traces += 1
            return step(params, state, data)

        self.donating = jax.jit(counted, donate_argnums=(0, 1))

    def __call__(self, params, state, data) -> Outcome:
        return self.donating(*jax.tree.map(jnp.copy, (params, state)), data)

    def run(self, params, data, steps: int, state=None) -> Outcome:
        state = self.tx.init(params) if state is None else state
        for _ in range(steps):
            outcome = self(params, state, data)
            params, state = outcome.params, outcome.state
        return outcome


@functools.cache
def trainer(name: str, objective: Callable = logistic) -> Trainer:
    return Trainer(name, objective)


def vdot(a, b) -> float:
    products = jax.tree.map(lambda x, y: np.vdot(np.float64(x), np.float64(y)), a, b)
    return sum(jax.tree.leaves(products))


def leaves_of(state) -> list[np.ndarray]:
    """The leaves as NumPy arrays, random keys by their bits."""

    def bits(x):
        is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return [bits(leaf) for leaf in jax.tree.leaves(state)]


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves_of(a), leaves_of(b), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_close(a, b, rtol=1e-4, atol=1e-5):
    chex.assert_trees_all_close(a, b, rtol=rtol, atol=atol)


def memory(state) -> list:
    """What a rejected step must leave alone: everything but the counts and the trust."""
    kept = []

    def look(node):
        if isinstance(node, so.CurvatureState):
            kept.append((node.curvature, node.solver))
            return True
        if hasattr(node, "learning_rate"):
            kept.append(node)
            return True
        return False

    jax.tree.leaves(state, is_leaf=look)
    return kept


def signature(tree):
    """Structure, shapes, dtypes and weak types."""
    return jax.tree.structure(tree), [
        (x.shape, x.dtype, getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)
    ]


def diagnostics(state) -> dict[str, Any]:
    return {key: value.item() for key, value in so.diagnostics(state).items()}


# ---------------------------------------------------------------------------------------------
# The interface


@rows()
def test_a_method_is_a_gradient_transformation_with_extra_args(name):
    assert isinstance(METHODS[name].make(), optax.GradientTransformationExtraArgs)


@rows()
def test_unknown_keywords_are_ignored(name):
    tx, params = METHODS[name].make(), logistic_start()

    def update(params, **extra):
        f = logistic(batch())
        return tx.update(jax.grad(f)(params), tx.init(params), params, value_fn=f, **extra)

    plain = jax.make_jaxpr(update)(params)
    with_more = jax.make_jaxpr(functools.partial(update, loss=1.0, tags=("a",)))(params)
    assert len(plain.eqns) == len(with_more.eqns)


@rows()
def test_a_missing_params_gives_an_error_that_shows_the_call(name):
    tx, params = METHODS[name].make(), logistic_start()
    with pytest.raises(ValueError, match=r"needs params.*opt\.update\(grad, state, params, value="):
        tx.update(params, tx.init(params), value_fn=logistic(batch()))


@rows(lambda method: method.gradients_alone)
def test_a_method_of_gradients_alone_needs_no_value_fn(name):
    tx, params = trainer(name).tx, logistic_start()
    grads = jax.grad(logistic(batch()))(params)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert_close(updates, trainer(name).run(params, batch(), 1).updates)


@rows(lambda method: not method.gradients_alone)
def test_a_missing_value_fn_gives_an_error_that_shows_the_call(name):
    tx, params = METHODS[name].make(), logistic_start()
    with pytest.raises(
        ValueError, match=r"needs value_fn.*opt\.update\(grad, state, params, value="
    ):
        tx.update(params, tx.init(params), params)


@rows(lambda method: not method.plain)
def test_a_plain_function_as_value_fn_gives_an_error_that_shows_compose(name):
    tx, params = METHODS[name].make(), logistic_start()
    with pytest.raises(TypeError, match=r"compose\(loss, model\)"):
        tx.update(params, tx.init(params), params, value_fn=lambda p: jnp.sum(p["w"] ** 2))


@rows(lambda method: method.plain)
def test_a_plain_function_serves_as_value_fn(name):
    tx, params = METHODS[name].make(), logistic_start()

    def update(params):
        f = lambda p: jnp.sum(p["w"] ** 2) + p["b"] ** 4
        return tx.update(jax.grad(f)(params), tx.init(params), params, value_fn=f)

    updates, _ = jax.eval_shape(update, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@rows()
@pytest.mark.parametrize("leaf", [jnp.ones(2, complex), jnp.ones(2, int)], ids=["complex", "int"])
def test_parameters_that_are_not_real_are_refused_by_name(name, leaf):
    tx, params = METHODS[name].make(), {"b": jnp.zeros(()), "w": leaf}
    with pytest.raises(TypeError, match=r"params\['w'\] (is complex|has dtype int)"):
        tx.init(params)


# ---------------------------------------------------------------------------------------------
# Shapes, dtypes and state


@rows()
def test_init_works_on_shapes_alone(name):
    tx, params = METHODS[name].make(), logistic_start()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    assert_identical(tx.init(shapes), tx.init(params))
    assert signature(jax.eval_shape(tx.init, shapes)) == signature(tx.init(params))


DTYPES = ["float16", "bfloat16", "float32", "float64"]


@rows()
@pytest.mark.parametrize("case", [*DTYPES, "float32 under x64"])
def test_updates_are_shaped_as_gradients_and_states_keep_their_types(name, case):
    dtype = case.split()[0]
    if dtype not in METHODS[name].dtypes:
        pytest.skip("the method does not support this dtype")
    with jax.enable_x64("64" in case):
        tx, params, data = METHODS[name].make(), logistic_start(dtype), batch(dtype)
        step = jax.jit(training_step(tx))  # traced once, for all of the following
        state = tx.init(params)
        first = jax.eval_shape(step, params, state, data)
        assert signature(first.state) == signature(state)
        assert signature(first.updates) == signature(first.grads)
        assert signature(first.grads) == signature(params)

        def body(carry):
            return step(*carry, data)[:2]

        carry = (params, state)
        loops = (
            lambda c: jax.lax.scan(lambda c, _: (body(c), None), c, length=2)[0],
            lambda c: jax.lax.while_loop(lambda c: c[0]["b"] < 0, body, c),
            lambda c: jax.lax.cond(c[0]["b"] < 0, body, lambda c: c, c),
        )
        for loop in loops:
            assert signature(jax.eval_shape(loop, carry)) == signature(carry)


@rows()
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_descends_in_every_dtype(name, dtype):
    if dtype not in METHODS[name].dtypes:
        pytest.skip("the method does not support this dtype")
    with jax.enable_x64(dtype == "float64"):
        step, params, data = trainer(name), logistic_start(dtype), batch(dtype)
        first = step(params, step.tx.init(params), data)
        assert vdot(first.updates, first.grads) < 0
        assert {x.dtype for x in jax.tree.leaves(first.params)} == {jnp.dtype(dtype)}
        later = step.run(first.params, data, 3, first.state)
        assert later.value < first.value
        assert not np.isnan(_join(later.params)).any()


@rows()
def test_states_hold_arrays_and_keys_alone(name):
    outcome = trainer(name).run(logistic_start(), batch(), 1)
    for state in (trainer(name).tx.init(logistic_start()), outcome.state):
        leaves = jax.tree.leaves(state)
        assert leaves and all(isinstance(leaf, jax.Array) for leaf in leaves)


@rows()
def test_any_number_of_calls_takes_one_trace(name):
    step = trainer(name)
    step.run(logistic_start(), batch(), 1)
    traces = step.traces
    step.run(logistic_start(), batch(), 3)
    assert step.traces == traces


# ---------------------------------------------------------------------------------------------
# JAX transformations


@rows()
def test_parameters_and_state_can_be_donated(name):
    step, params = trainer(name), logistic_start()
    state = step.tx.init(params)
    kept = step(params, state, batch())
    donated = step.donating(params, state, batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert_identical(donated, kept)


@rows()
def test_training_under_scan_and_vmap_equals_the_python_loop(name):
    step = training_step(trainer(name).tx)

    def train(params, data):
        def body(carry, _):
            outcome = step(*carry, data)
            return (outcome.params, outcome.state), outcome.value

        return jax.lax.scan(body, (params, trainer(name).tx.init(params)), length=3)

    starts = {"b": jnp.array([0.0, 0.3]), "w": jnp.array([[0.0, 0.0], [0.2, -0.1]])}
    (params, state), values = jax.jit(jax.vmap(train, in_axes=(0, None)))(starts, batch())
    for i in range(2):
        pick = functools.partial(jax.tree.map, lambda x: x[i])  # noqa: B023
        alone = trainer(name).run(pick(starts), batch(), 3)
        assert_close(pick(params), alone.params)
        assert_close(values[i, -1], alone.value)
        assert diagnostics(pick(state))["steps"] == 3


# ---------------------------------------------------------------------------------------------
# Optax's wrappers


def first_update(tx) -> Outcome:
    return jax.jit(training_step(tx))(logistic_start(), tx.init(logistic_start()), batch())


def injected(name):
    """The method with its options as hyperparameters; static are those that give shapes."""
    factory = METHODS[name].factory
    static = {
        "max_cg_steps",
        "backtrack",
        "halvings",
        "block_size",
        "max_precond_dim",
        "example",
        "layer_of",
    } & set(inspect.signature(factory).parameters)
    return optax.inject_hyperparams(factory, static_args=static)(**METHODS[name].options)


@rows()
def test_options_can_be_injected_as_hyperparameters(name):
    tx = injected(name)
    outcome = first_update(tx)
    assert set(METHODS[name].options) - {"example"} <= set(outcome.state.hyperparams)
    assert signature(outcome.state) == signature(tx.init(logistic_start()))
    expected = trainer(name).run(logistic_start(), batch(), 1)
    assert_close(outcome.updates, expected.updates)
    assert diagnostics(outcome.state)["steps"] == 1


LIVE = [(name, option) for name, method in METHODS.items() for option in method.live]


def another(name, option) -> float:
    """Another value of an option than the table's."""
    return 2 * METHODS[name].options[option] + 1.0


@functools.cache
def update_with_another(name, option, count=1):
    """That of so many updates at the start which is last, with the other value, as a constant."""
    tx = METHODS[name].make(**{option: another(name, option)})
    step, state = jax.jit(training_step(tx)), tx.init(logistic_start())
    for _ in range(count):
        outcome = step(logistic_start(), state, batch())
        state = outcome.state
    return outcome.updates


@pytest.mark.parametrize(("name", "option"), LIVE, scope="module")
def test_a_schedule_gives_each_step_its_own_value(name, option):
    method = METHODS[name]
    schedule = lambda n: jnp.where(n < 1, method.options[option], another(name, option))
    tx = method.make(**{option: schedule})
    step = jax.jit(training_step(tx))
    first = step(logistic_start(), tx.init(logistic_start()), batch())
    second = step(logistic_start(), first.state, batch())
    assert_close(first.updates, trainer(name).run(logistic_start(), batch(), 1).updates)
    assert_close(second.updates, update_with_another(name, option, 2))
    assert abs(vdot(second.updates, second.grads) - vdot(first.updates, first.grads)) > 1e-3


@pytest.mark.parametrize(("name", "option"), LIVE, scope="module")
def test_a_changed_hyperparameter_holds_from_the_next_update_on(name, option):
    tx = injected(name)
    state = tx.init(logistic_start())
    state.hyperparams[option] = jnp.asarray(another(name, option))
    updates = jax.jit(training_step(tx))(logistic_start(), state, batch()).updates
    assert_close(updates, update_with_another(name, option))


@rows()
def test_multi_steps_applies_the_average_once(name):
    tx = optax.MultiSteps(trainer(name).tx, every_k_schedule=2)
    step = jax.jit(training_step(tx))
    start = tx.init(logistic_start())
    first = step(logistic_start(), start, batch())
    assert vdot(first.updates, first.updates) == 0
    assert signature(first.state) == signature(start)
    assert diagnostics(first.state)["steps"] == 0
    second = step(first.params, first.state, batch())
    expected = trainer(name).run(logistic_start(), batch(), 1)
    assert_close(second.updates, expected.updates)
    assert diagnostics(second.state)["steps"] == 1


@rows()
def test_apply_if_finite_passes_updates_through(name):
    tx = optax.apply_if_finite(trainer(name).tx, max_consecutive_errors=2)
    outcome = first_update(tx)
    assert_close(outcome.updates, trainer(name).run(logistic_start(), batch(), 1).updates)
    assert diagnostics(outcome.state)["steps"] == 1


@rows()
def test_in_a_named_chain_it_descends_along_clipped_gradients(name):
    links = ("clip", optax.clip_by_global_norm(1e-2)), ("method", trainer(name).tx)
    tx = optax.named_chain(*links)
    outcome = first_update(tx)
    assert vdot(outcome.updates, outcome.grads) < 0
    np.testing.assert_equal(diagnostics(outcome.state["method"]), diagnostics(outcome.state))


def frozen_bias(tx, how: str):
    """``tx`` on the weights alone, by one of Optax's two ways."""
    if how == "masked":
        freeze = optax.masked(optax.set_to_zero(), {"b": True, "w": False})
        return optax.chain(optax.masked(tx, {"b": False, "w": True}), freeze)
    return optax.partition({"train": tx, "hold": optax.set_to_zero()}, {"b": "hold", "w": "train"})


HELD = {"b": jnp.array(0.1, jnp.float32), "w": jnp.zeros(2)}


@functools.cache
def update_of_the_weights_alone(name):
    def weights_alone(data):
        whole = logistic(data)
        return so.compose(whole.loss, lambda w: whole.model({"b": HELD["b"], "w": w}))

    step = jax.jit(training_step(trainer(name).tx, weights_alone))
    return step(HELD["w"], trainer(name).tx.init(HELD["w"]), batch()).updates


@rows()
@pytest.mark.parametrize("how", ["masked", "partition"])
def test_frozen_leaves_stay_bit_identical_and_the_others_are_solved_for(name, how):
    tx, params = frozen_bias(trainer(name).tx, how), HELD

    @jax.jit
    def both(params, state):
        objective = logistic(batch())
        value, grads = jax.value_and_grad(objective)(params)
        restricted = so.restrict(objective, params)
        updates, state = tx.update(
            grads, state, params, value=value, grad=grads, value_fn=restricted
        )
        return optax.apply_updates(params, updates), updates, state

    moved, updates, state = both(params, tx.init(params))
    assert_identical(moved["b"], params["b"])
    assert signature(state) == signature(tx.init(params))
    assert_close(updates["w"], update_of_the_weights_alone(name))


@rows()
def test_it_chains_with_the_line_search_of_optax(name):
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=10)
    tx = optax.chain(trainer(name).tx, so.only_extra_args(search, "value", "grad", "value_fn"))

    @jax.jit
    def update(data):
        objective, params = logistic(data), logistic_start()
        value, grads = jax.value_and_grad(objective)(params)
        state = tx.init(params)
        updates, state = tx.update(
            grads, state, params, value=value, grad=grads, value_fn=objective, epoch=3
        )
        return updates, grads, objective(updates) - value

    updates, grads, change = update(batch())
    assert vdot(updates, grads) < 0 and change < 0
    behind_a_wall, _, _ = update(batch(wall=1e-6))  # a closed loop hands a step of zeros over
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(behind_a_wall))


@rows()
def test_it_chains_with_the_zoom_line_search_of_optax(name):
    search = optax.scale_by_zoom_linesearch(10, initial_guess_strategy="one")
    tx = optax.chain(trainer(name).tx, so.only_extra_args(search, "value", "grad", "value_fn"))
    params = logistic_start()
    outcome = jax.eval_shape(training_step(tx), params, tx.init(params), batch())
    assert signature(outcome.updates) == signature(params)


# ---------------------------------------------------------------------------------------------
# Trees


@rows(lambda method: not method.by_leaf)
def test_the_shape_of_the_tree_does_not_change_the_step(name):
    tree = {
        "none": None,
        "scalar": jnp.array(0.3, jnp.float32),
        "nested": ((jnp.array([0.1, -0.2]),), [jnp.zeros((0, 2))]),
        "matrix": jnp.array([[0.5], [0.4]]),
    }

    def updates_of(params):
        step = training_step(trainer(name).tx, affine)
        outcome = jax.jit(lambda p, s: step(p, s, p))(params, trainer(name).tx.init(params))
        assert signature(outcome.updates) == signature(params)
        return _join(outcome.updates)

    assert_close(updates_of(tree), updates_of(_join(tree)))


@rows()
def test_an_empty_tree_passes_through(name):
    tx, nothing = METHODS[name].make(), {"a": None, "b": ()}
    objective = so.compose(so.squared_error(jnp.zeros(1)), lambda p: jnp.ones(1))
    updates, state = tx.update(nothing, tx.init(nothing), nothing, value_fn=objective)
    assert updates == nothing
    assert signature(state) == signature(tx.init(nothing))


def modules():
    """Parameters of each neural network library, and the function of them and an input."""
    net = eqx.nn.Linear(2, 1, key=jax.random.key(0))
    arrays, static = eqx.partition(net, eqx.is_inexact_array)
    yield "equinox", arrays, lambda p, x: eqx.combine(p, static)(x)

    linear = nn.Dense(1)
    variables = linear.init(jax.random.key(0), jnp.zeros(2))
    yield "linen", variables, linear.apply

    graph, state = nnx.split(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), nnx.Param)
    yield "nnx", state, lambda p, x: nnx.merge(graph, p)(x)


@rows()
def test_module_trees_are_parameters_like_any_others(name):
    tx, data = trainer(name).tx, batch()
    for library, params, apply in modules():
        loss = so.sigmoid_cross_entropy(data["y"][:, None])
        step = training_step(tx, lambda data: so.per_example(loss, apply, data["x"]))  # noqa: B023
        state = tx.init(params)
        outcome = jax.eval_shape(step, params, state, data)
        assert signature(outcome.updates) == signature(params), library
        assert signature(outcome.state) == signature(state), library


# ---------------------------------------------------------------------------------------------
# Saving


def round_trip_by_pickle(state, path):
    return pickle.loads(pickle.dumps(state))


def round_trip_by_orbax(state, path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path / "state", state)


@rows()
@pytest.mark.parametrize("round_trip", [round_trip_by_pickle, round_trip_by_orbax])
def test_a_saved_and_loaded_state_takes_the_same_next_step(name, round_trip, tmp_path):
    saved = trainer(name).run(logistic_start(), batch(), 2)
    loaded = round_trip((saved.params, saved.state), tmp_path)
    assert_identical(loaded, (saved.params, saved.state))
    again = trainer(name)(*loaded, batch())
    assert_identical(again, trainer(name)(saved.params, saved.state, batch()))


# ---------------------------------------------------------------------------------------------
# Devices


@rows()
def test_a_batch_spread_over_eight_devices_gives_the_same_steps(name):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("batch"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    data = {key: jax.device_put(x, spread if x.ndim else everywhere) for key, x in batch().items()}
    params, state = jax.device_put(
        (logistic_start(), trainer(name).tx.init(logistic_start())), everywhere
    )
    outcome = trainer(name)(params, state, data)
    assert len(outcome.updates["w"].sharding.device_set) == 8
    assert_close(outcome.updates, trainer(name).run(logistic_start(), batch(), 1).updates)


@rows(lambda method: method.matrix_free)
def test_explicitly_sharded_parameters_keep_their_sharding(name):
    tx = trainer(name).tx
    data = jnp.linspace(0.5, 1.5, 16)
    objective = lambda data: so.sum_of_squares(lambda p: jnp.exp(p["w"]) - data)
    step = jax.jit(training_step(tx, objective))
    alone = step({"w": jnp.zeros(16)}, tx.init({"w": jnp.zeros(16)}), data)

    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec("model"))
        params = {"w": jax.device_put(jnp.zeros(16), sharding)}
        outcome = step(params, tx.init(params), jax.device_put(data, sharding))
    assert outcome.updates["w"].sharding == sharding
    assert_close(np.asarray(outcome.updates["w"]), np.asarray(alone.updates["w"]))


# ---------------------------------------------------------------------------------------------
# Convergence


def slope_after(steps: int, name, objective, params, data) -> float:
    """The length of the gradient at the point that so many steps lead to."""
    grads = trainer(name, objective).run(params, data, steps + 1).grads
    return vdot(grads, grads) ** 0.5


def assert_solved_within(steps: int, *problem):
    assert slope_after(0, *problem) > 0.1
    assert slope_after(steps, *problem) < 1e-3


@rows(lambda method: method.parabola)
def test_it_solves_a_parabola_within_its_stated_steps(name):
    problem = name, valley, jnp.array([-1.0, 2.0]), (1.2, 0.0)
    assert_solved_within(METHODS[name].parabola, *problem)


@rows(lambda method: method.rosenbrock)
def test_it_solves_rosenbrocks_valley_within_its_stated_steps(name):
    problem = name, valley, jnp.array([-1.2, 1.0]), (10.0, 1.0)
    assert_solved_within(METHODS[name].rosenbrock, *problem)


@rows(lambda method: method.logistic)
def test_it_solves_a_logistic_regression_within_its_stated_steps(name):
    problem = name, logistic, logistic_start(), batch()
    assert_solved_within(METHODS[name].logistic, *problem)


# ---------------------------------------------------------------------------------------------
# What can go wrong


@rows()
def test_where_the_curvature_is_indefinite_it_descends_or_rejects_and_says_so(name):
    step, params, theta = trainer(name, valley), jnp.array([0.0, 2.0]), (1.0, 2.0)
    grad, hessian = jax.grad(valley(theta))(params), jax.hessian(valley(theta))(params)
    assert grad @ hessian @ grad < -1
    outcome = step(params, step.tx.init(params), theta)
    report = diagnostics(outcome.state)
    descends = vdot(outcome.updates, outcome.grads) < 0
    rejected = vdot(outcome.updates, outcome.updates) == 0 and not report["accepted"]
    assert descends or rejected
    if METHODS[name].flags:
        assert report["stopped"] in METHODS[name].flags


@rows()
def test_a_batch_of_nan_changes_neither_parameters_nor_memory(name):
    step = trainer(name)
    before = step.run(logistic_start(), batch(), 2)
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), batch())
    outcome = step(before.params, before.state, broken)
    assert np.isnan(outcome.value)
    assert vdot(outcome.updates, outcome.updates) == 0
    assert_identical(outcome.params, before.params)
    assert_identical(memory(outcome.state), memory(before.state))
    report, earlier = diagnostics(outcome.state), diagnostics(before.state)
    assert not report["accepted"] and report["rejections"] == earlier["rejections"] + 1
    assert report["stopped"] == Stop.NONFINITE

    after = step.run(outcome.params, batch(), 3, outcome.state)
    assert np.isfinite(after.value) and after.value < before.value


@functools.cache
def update_by_function_alone(name) -> Callable:
    """``(grads, state) -> (updates, state)`` at the start, without ``value`` and ``grad``."""
    update = trainer(name).tx.update
    return jax.jit(lambda g, state: update(g, state, logistic_start(), value_fn=logistic(batch())))


@rows()
def test_a_gradient_of_nan_alone_changes_nothing(name):
    start = trainer(name).tx.init(logistic_start())
    broken = {"b": jnp.array(jnp.nan, jnp.float32), "w": jnp.ones(2)}
    updates, state = update_by_function_alone(name)(broken, start)
    assert vdot(updates, updates) == 0
    assert_identical(memory(state), memory(start))
    assert not diagnostics(state)["accepted"]


@rows()
def test_a_value_that_is_not_passed_is_computed(name):
    expected = trainer(name).run(logistic_start(), batch(), 1)
    start = trainer(name).tx.init(logistic_start())
    updates, _ = update_by_function_alone(name)(expected.grads, start)
    assert_close(updates, expected.updates)


@rows(lambda method: method.closed_loop)
def test_a_step_to_nan_is_rejected_and_the_next_one_is_shorter(name):
    step, data = trainer(name), batch(wall=1e-3)
    outcome = step(logistic_start(), step.tx.init(logistic_start()), data)
    assert not diagnostics(outcome.state)["accepted"]
    assert vdot(outcome.updates, outcome.updates) == 0
    assert_identical(memory(outcome.state), memory(step.tx.init(logistic_start())))
    # It goes on until a step ends this side of the wall, and that one goes downhill.
    for _ in range(30):
        outcome = step(outcome.params, outcome.state, data)
        if diagnostics(outcome.state)["accepted"]:
            break
    assert vdot(outcome.updates, outcome.grads) < 0
    assert 0 < vdot(outcome.updates, outcome.updates) <= 1e-3


@rows(lambda method: not method.closed_loop and "learning_rate" not in method.options)
def test_a_line_search_stays_on_this_side_of_nan(name):
    step, data = trainer(name), batch(wall=1e-3)
    outcome = step(logistic_start(), step.tx.init(logistic_start()), data)
    assert np.isfinite(logistic(data)(outcome.params))
    assert vdot(outcome.updates, outcome.grads) < 0


@rows(lambda method: method.closed_loop)
def test_the_gain_compares_values_of_the_very_objective_it_was_given(name):
    step, data = trainer(name), batch()
    outcome = step(logistic_start(), step.tx.init(logistic_start()), data)
    report = diagnostics(outcome.state)
    actual = logistic(data)(outcome.params) - outcome.value
    np.testing.assert_allclose(report["gain"], actual / report["predicted"], rtol=1e-2)
