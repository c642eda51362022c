"""A classifier of the digits, trained until it knows them all: full batch."""

import functools

import numpy as np
from sklearn.datasets import load_digits

import secondorder as so
from experiments.problem import Problem
from experiments.problems import networks

SIZES = (64, 64, 64, 10)
TARGETS = (1e-1, 1e-2, 1e-3)


@functools.cache
def load():
    images, labels = load_digits(return_X_y=True)
    return {"inputs": np.asarray(images / 16.0, np.float32), "labels": labels.astype(np.int32)}


def objective(batch):
    loss = so.softmax_cross_entropy(batch["labels"])
    return so.compose(loss, lambda params: networks.outputs(params, batch["inputs"]))


PROBLEM = Problem(
    name="digits-classifier",
    title="A classifier of the digits images",
    description=(
        f"All 1,797 images as one batch, {'-'.join(map(str, SIZES))} tanh units; the error is the "
        "training cross-entropy in nats."
    ),
    load=load,
    init=lambda key, data: networks.init(key, SIZES),
    objective=objective,
    metrics=lambda params, data: {"error": objective(data)(params)},
    measure="loss",
    targets=TARGETS,
    steps={"first-order": 400, "quasi-newton": 400, "matrix-free": 60, "dense": 60},
    solved=lambda row: row["error"] <= TARGETS[-1],
    float64=False,
    random_start=True,
    grad_norm_target=1e-9,
    tuning_steps=200,
)
