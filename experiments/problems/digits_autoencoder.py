"""An autoencoder of two code units on the digits: full batch, deep and narrow."""

import functools

import numpy as np
from sklearn.datasets import load_digits

import secondorder as so
from experiments.problem import Problem
from experiments.problems import networks

SIZES = (64, 32, 16, 8, 2, 8, 16, 32, 64)
TARGETS = (3.0, 2.0)


@functools.cache
def load():
    images, _ = load_digits(return_X_y=True)
    return {"inputs": np.asarray(images / 16.0, np.float32)}


def objective(batch):
    loss = so.sigmoid_cross_entropy(batch["inputs"])
    return so.compose(loss, lambda params: networks.outputs(params, batch["inputs"]))


PROBLEM = Problem(
    name="digits-autoencoder",
    title="An autoencoder of the digits images",
    description=(
        f"All 1,797 images of 8 x 8 pixels as one batch, {'-'.join(map(str, SIZES))} tanh units, "
        "cross-entropy of the pixels; the error is squared, per image."
    ),
    load=load,
    init=lambda key, data: networks.init(key, SIZES),
    objective=objective,
    metrics=lambda params, data: {"error": networks.squared_error(params, data["inputs"])},
    measure="loss",
    targets=TARGETS,
    steps={"first-order": 1000, "quasi-newton": 1000, "matrix-free": 150, "dense": 150},
    solved=lambda row: row["error"] <= TARGETS[-1],
    float64=False,
    random_start=True,
    grad_norm_target=1e-6,
    tuning_steps=300,
)
