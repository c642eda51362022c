"""Binary logistic regression with an L2 penalty: smooth, strongly convex, 31 parameters."""

import math

import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer

import secondorder as so
from experiments.problem import Problem, split

PENALTY = 1e-3


def load():
    measurements, benign = load_breast_cancer(return_X_y=True)
    train, held_out = split(len(benign), 0.2)
    measurements = np.asarray(measurements)
    mean, deviation = measurements[train].mean(0), measurements[train].std(0)
    inputs = (measurements - mean) / deviation
    targets = np.asarray(benign, np.float64)
    return {
        "inputs": inputs[train],
        "targets": targets[train],
        "held_out_inputs": inputs[held_out],
        "held_out_targets": targets[held_out],
    }


def init(key, data):
    del key
    return {"weights": jnp.zeros(data["inputs"].shape[1]), "intercept": jnp.zeros(())}


def logits(params, inputs):
    return inputs @ params["weights"] + params["intercept"]


def objective(batch):
    # The model hands the weights through to the loss: so the Gauss-Newton matrix holds the penalty.
    loss = so.losses.total(
        so.sigmoid_cross_entropy(batch["targets"]), so.losses.half_sum_of_squares()
    )

    def outputs(params):
        return logits(params, batch["inputs"]), math.sqrt(PENALTY) * params["weights"]

    return so.compose(loss, outputs)


def metrics(params, data):
    right = (logits(params, data["held_out_inputs"]) > 0) == (data["held_out_targets"] > 0.5)
    return {"held_out_accuracy": jnp.mean(right)}


PROBLEM = Problem(
    name="logistic",
    title="Logistic regression on the breast-cancer data",
    description=(
        "569 tumours, 30 standardised measurements, benign or malignant; 455 for training, "
        f"114 held out. Cross-entropy plus an L2 penalty of {PENALTY:g}, from zeros, in "
        "float64. Smooth and strongly convex: what the textbooks promise should show here. "
        "The model is linear, so the Gauss-Newton matrix is the Hessian, and the two methods "
        "coincide."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=metrics,
    targets=(1e-2, 1e-4, 1e-8),
    tuning_steps=1000,
    steps={"first-order": 3000, "quasi-newton": 300, "matrix-free": 100, "dense": 50},
)
