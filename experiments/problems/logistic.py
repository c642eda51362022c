"""Binary logistic regression with an L2 penalty: smooth, strongly convex, 31 parameters."""

import jax.numpy as jnp
import numpy as np
import secondorder as so
from sklearn.datasets import load_breast_cancer

from experiments.penalty import Penalised
from experiments.problem import Problem, split

PENALTY = 1e-3


def load():
    bunch = load_breast_cancer()
    train, held_out = split(len(bunch.target), 0.2)
    mean, deviation = bunch.data[train].mean(0), bunch.data[train].std(0)
    inputs = (bunch.data - mean) / deviation
    targets = bunch.target.astype(np.float64)
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
    # The model hands the weights through to the loss, so that the Gauss-Newton matrix holds the penalty.
    loss = Penalised(so.sigmoid_cross_entropy(batch["targets"]), PENALTY)
    return so.compose(loss, lambda params: (logits(params, batch["inputs"]), params["weights"]))


def metrics(params, data):
    right = (logits(params, data["held_out_inputs"]) > 0) == (data["held_out_targets"] > 0.5)
    return {"held_out_accuracy": jnp.mean(right)}


PROBLEM = Problem(
    name="logistic",
    title="Logistic regression on the breast-cancer data",
    description=(
        "569 tumours, 30 standardised measurements, benign or malignant; 455 for training, 114 held out. "
        f"Cross-entropy plus an L2 penalty of {PENALTY:g}, from zeros, in float64. Smooth and strongly convex: "
        "what the textbooks promise should show here."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=metrics,
    targets=(1e-2, 1e-4, 1e-8),
    steps={"first-order": 3000, "quasi-newton": 300, "matrix-free": 100, "dense": 50},
)
