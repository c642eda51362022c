"""The problems of the contract, small as they come."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import secondorder as so


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


HELD = {"b": jnp.array(0.1, jnp.float32), "w": jnp.zeros(2)}


def valley(theta) -> so.Objective:
    """Rosenbrock's valley for theta = (10, 1), a parabola for (1.2, 0)."""
    steep, bend = theta
    return so.sum_of_squares(lambda p: jnp.stack([steep * (p[1] - bend * p[0] ** 2), 1 - p[0]]))


def affine(params) -> so.Objective:
    """A least-squares problem on a tree of any shape; the same one for the same joined vector."""
    features = jnp.sin(1.0 + jnp.arange(3 * so.tree.size(params))).reshape(3, -1)
    return so.compose(so.squared_error(jnp.array([1.0, -2.0, 0.5])), lambda p: features @ join(p))


def join(params):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])


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
