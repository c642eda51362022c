"""Trees of parameters of every shape, and those of neural network libraries."""

import jax
import jax.numpy as jnp
import optax
import pytest
from cases import with_slow
from contract.problems import affine, batch, join, modules
from contract.steps import assert_close, signature, trainer, training_step
from contract.table import METHODS, REPRESENTATIVES, representatives, rows, rows_of_kinds
from flax import nnx

import secondorder as so

TREE = {
    "none": None,
    "scalar": jnp.array(0.3, jnp.float32),
    "nested": ((jnp.array([0.1, -0.2]),), [jnp.zeros((0, 2))]),
    "matrix": jnp.array([[0.5], [0.4]]),
}


def of_an_affine_model(name):
    """``(params, state) -> Outcome``; the data are the parameters, by their shapes alone."""
    step = training_step(trainer(name).tx, affine)
    return jax.jit(lambda params, state: step(params, state, params))


@pytest.mark.quick(3)
@rows_of_kinds(lambda method: not method.by_leaf)
def test_any_tree_has_updates_and_a_state_of_its_own_shape(name):
    state = trainer(name).tx.init(TREE)
    outcome = jax.eval_shape(of_an_affine_model(name), TREE, state)
    assert signature(outcome.updates) == signature(TREE)
    assert signature(outcome.state) == signature(state)


# That parameters are one vector, whatever their tree, is the work of the tree, the operators and
# the solvers: a method of each kind shows it.
WHOLE = [name for name in REPRESENTATIVES if not METHODS[name].by_leaf]


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", WHOLE)
def test_the_shape_of_the_tree_does_not_change_the_step(name):
    def updates_of(params):
        outcome = of_an_affine_model(name)(params, trainer(name).tx.init(params))
        return join(outcome.updates)

    assert_close(updates_of(TREE), updates_of(join(TREE)))


@rows()
def test_an_empty_tree_passes_through(name):
    tx, nothing = METHODS[name].make(), {"a": None, "b": ()}
    objective = so.compose(so.squared_error(jnp.zeros(1)), lambda p: jnp.ones(1))
    updates, state = tx.update(nothing, tx.init(nothing), nothing, value_fn=objective)
    assert updates == nothing
    assert signature(state) == signature(tx.init(nothing))


class Net(nnx.Module):
    """Two layers with biases."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first, self.second = nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


NNX = with_slow(METHODS, lambda name: name in ("soap", "shampoo", "layerwise_gauss_newton"))


@pytest.mark.quick(1)
@pytest.mark.parametrize(("name",), NNX)
def test_in_an_optimizer_of_nnx_it_takes_the_same_steps(name):
    graph, start = nnx.split(Net(), nnx.Param)
    data = batch()
    loss = so.sigmoid_cross_entropy(data["y"][:, None])
    f = so.compose(loss, lambda p: nnx.merge(graph, p, copy=True)(data["x"]))
    tx = METHODS[name].make(**({"example": f} if "example" in METHODS[name].options else {}))

    def known(params):
        value, grads = jax.value_and_grad(f)(params)
        return grads, {"value": value, "grad": grads, "value_fn": f}

    @jax.jit
    def step(params, state):
        grads, options = known(params)
        updates, state = tx.update(grads, state, params, **options)
        return optax.apply_updates(params, updates), state

    @nnx.jit
    def theirs(net, optimizer):
        grads, options = known(nnx.state(net, nnx.Param))
        optimizer.update(net, grads, **options)

    params, state, net = start, tx.init(start), Net()
    optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)
    for _ in range(5):
        params, state = step(params, state)
        theirs(net, optimizer)
    found = nnx.to_pure_dict(nnx.state(net, nnx.Param))
    # Rounding between two programs grows along the path.
    assert_close(found, nnx.to_pure_dict(params), rtol=1e-2, atol=1e-3)


@pytest.mark.quick(1)
@representatives
def test_module_trees_are_parameters_like_any_others(name):
    tx, data = trainer(name).tx, batch()
    for library, params, apply in modules():
        loss = so.sigmoid_cross_entropy(data["y"][:, None])
        step = training_step(tx, lambda data: so.per_example(loss, apply, data["x"]))  # noqa: B023
        state = tx.init(params)
        outcome = jax.eval_shape(step, params, state, data)
        assert signature(outcome.updates) == signature(params), library
        assert signature(outcome.state) == signature(state), library
