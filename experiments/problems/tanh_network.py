"""A small tanh network on the digits: not convex, several seeds."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problem import Problem
from experiments.problems.softmax import CLASSES, load_images

HIDDEN = 6
PENALTY = 1e-4
HELD_OUT = 0.8  # of the images; a dense step costs in proportion to the rest


def load():
    return {
        name: array.astype(np.float32) if array.dtype == np.float64 else array
        for name, array in load_images(HELD_OUT).items()
    }


def init(key, data):
    """Glorot-normal kernels, zero biases."""
    sizes = (data["inputs"].shape[1], HIDDEN, CLASSES)
    layers = []
    for layer_key, fan_in, fan_out in zip(
        jax.random.split(key), sizes[:-1], sizes[1:], strict=True
    ):
        scale = (2 / (fan_in + fan_out)) ** 0.5
        kernel = scale * jax.random.normal(layer_key, (fan_in, fan_out), jnp.float32)
        layers.append({"kernel": kernel, "bias": jnp.zeros(fan_out, jnp.float32)})
    return tuple(layers)


def logits(params, inputs):
    first, second = params
    hidden = jnp.tanh(inputs @ first["kernel"] + first["bias"])
    return hidden @ second["kernel"] + second["bias"]


def objective(batch):
    loss = so.losses.total(
        so.softmax_cross_entropy(batch["labels"]), so.losses.half_sum_of_squares()
    )

    def outputs(params):
        return logits(params, batch["inputs"]), so.tree.scale(math.sqrt(PENALTY), params)

    return so.compose(loss, outputs)


def metrics(params, data):
    right = jnp.argmax(logits(params, data["held_out_inputs"]), axis=-1) == data["held_out_labels"]
    return {"held_out_accuracy": jnp.mean(right)}


PROBLEM = Problem(
    name="tanh-network",
    title="A tanh network on the digits images",
    description=(
        f"64 pixels, {HIDDEN} hidden tanh units, ten classes: 460 parameters, 359 images for "
        "training, 1,438 held out, full batch. Cross-entropy plus an L2 penalty of "
        f"{PENALTY:g}, in float32. Not convex, so there is no known optimum: the training loss "
        "itself is drawn, as the median over seeds with a band from the least to the "
        "greatest."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=metrics,
    measure="loss",
    targets=(0.5, 0.2, 0.1),
    steps={"first-order": 400, "quasi-newton": 150, "matrix-free": 50, "dense": 12},
    float64=False,
    random_start=True,
    grad_norm_target=1e-5,
    tuning_steps=200,
)
