"""A small tanh network on the digits: not convex, several seeds."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problem import Problem
from experiments.problems.softmax import CLASSES, accuracy, load_images, penalised

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


objective = penalised(logits, PENALTY)


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
    metrics=accuracy(logits),
    measure="loss",
    targets=(0.5, 0.2, 0.1),
    steps={"first-order": 400, "quasi-newton": 150, "matrix-free": 50, "dense": 12},
    float64=False,
    random_start=True,
    grad_norm_target=1e-5,
    tuning_steps=200,
)
