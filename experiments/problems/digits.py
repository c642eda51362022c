"""Networks on all the digits, full batch: a deep and narrow autoencoder, and a classifier."""

import functools

import numpy as np
from sklearn.datasets import load_digits

import secondorder as so
from experiments.problem import Problem
from experiments.problems import networks

NARROW, WIDE = (64, 32, 16, 8, 2, 8, 16, 32, 64), (64, 64, 64, 10)


@functools.cache
def load():
    images, labels = load_digits(return_X_y=True)
    inputs = np.asarray(images / 16.0, np.float32)
    return {"inputs": inputs, "labels": np.asarray(labels, np.int32)}


def classification(batch):
    loss = so.softmax_cross_entropy(batch["labels"])
    return so.compose(loss, lambda params: networks.outputs(params, batch["inputs"]))


AUTOENCODER = Problem(
    name="digits-autoencoder",
    title="An autoencoder of the digits images",
    description=(
        f"All 1,797 images of 8 x 8 pixels as one batch, {'-'.join(map(str, NARROW))} tanh units, "
        "cross-entropy of the pixels; the error is squared, per image."
    ),
    load=load,
    init=lambda key, data: networks.init(key, NARROW),
    objective=networks.reconstruction,
    metrics=lambda params, data: {"error": networks.squared_error(params, data["inputs"])},
    measure="loss",
    targets=(3.0, 2.0),
    steps={"first-order": 1000, "quasi-newton": 1000, "matrix-free": 150, "dense": 150},
    solved=lambda row: row["error"] <= 2.0,
    float64=False,
    random_start=True,
    grad_norm_target=1e-6,
    tuning_steps=300,
)

CLASSIFIER = Problem(
    name="digits-classifier",
    title="A classifier of the digits images",
    description=(
        f"All 1,797 images as one batch, {'-'.join(map(str, WIDE))} tanh units; the error is the "
        "training cross-entropy in nats."
    ),
    load=load,
    init=lambda key, data: networks.init(key, WIDE),
    objective=classification,
    metrics=lambda params, data: {"error": classification(data)(params)},
    measure="loss",
    targets=(1e-1, 1e-2, 1e-3),
    steps={"first-order": 400, "quasi-newton": 400, "matrix-free": 60, "dense": 60},
    solved=lambda row: row["error"] <= 1e-3,
    float64=False,
    random_start=True,
    grad_norm_target=1e-9,
    tuning_steps=200,
)
