"""Softmax regression with an L2 penalty: convex, 650 parameters, ten classes."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import secondorder as so
from experiments.problem import Problem, split

PENALTY = 1e-3
CLASSES = 10


@functools.cache
def load_images(held_out_fraction=0.7):
    """The 8 x 8 digits, scaled to [0, 1] and centred on the training mean."""
    images, digits = load_digits(return_X_y=True)
    train, held_out = split(len(digits), held_out_fraction)
    inputs = np.asarray(images, np.float64) / 16.0
    inputs = inputs - inputs[train].mean(0)
    labels = np.asarray(digits, np.int32)
    return {
        "inputs": inputs[train],
        "labels": labels[train],
        "held_out_inputs": inputs[held_out],
        "held_out_labels": labels[held_out],
    }


def init(key, data):
    del key
    return {
        "weights": jnp.zeros((data["inputs"].shape[1], CLASSES)),
        "intercept": jnp.zeros(CLASSES),
    }


def logits(params, inputs):
    return inputs @ params["weights"] + params["intercept"]


def penalised(logits, penalty):
    """A batch ↦ cross-entropy plus an L2 penalty on all parameters."""

    # Softmax does not notice a constant added to all logits; penalising the intercept too removes
    # that flat direction and leaves one minimiser.
    def objective(batch):
        loss = so.losses.total(
            so.softmax_cross_entropy(batch["labels"]), so.losses.half_sum_of_squares()
        )

        def outputs(params):
            return logits(params, batch["inputs"]), so.tree.scale(math.sqrt(penalty), params)

        return so.compose(loss, outputs)

    return objective


def accuracy(logits):
    """The part of the images held out whose class has the largest logit."""

    def metrics(params, data):
        found = jnp.argmax(logits(params, data["held_out_inputs"]), axis=-1)
        return {"held_out_accuracy": jnp.mean(found == data["held_out_labels"])}

    return metrics


PROBLEM = Problem(
    name="softmax",
    title="Softmax regression on the digits images",
    description=(
        "1,797 images of 8 x 8 pixels, ten classes; 539 for training, 1,258 held out. Cross- "
        f"entropy plus an L2 penalty of {PENALTY:g}, from zeros, in float64. Convex with 650 "
        "parameters: large enough that a dense Hessian or Jacobian is no longer free."
    ),
    load=load_images,
    init=init,
    objective=penalised(logits, PENALTY),
    metrics=accuracy(logits),
    targets=(1e-2, 1e-4, 1e-8),
    tuning_steps=400,
    steps={"first-order": 1000, "quasi-newton": 300, "matrix-free": 60, "dense": 20},
)
