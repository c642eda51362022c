"""Ridge regression: a quadratic whose minimum is one linear solve."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes

import secondorder as so
from experiments.problem import Problem, split

PENALTY = 1e-3


@functools.cache
def load():
    measurements, progression = load_diabetes(return_X_y=True, scaled=False)
    train, held_out = split(len(progression), 0.2)
    standardised = lambda x: (x - x[train].mean(0)) / x[train].std(0)
    inputs, targets = standardised(measurements), standardised(progression)
    return {
        "inputs": inputs[train],
        "targets": targets[train],
        "held_out_inputs": inputs[held_out],
        "held_out_targets": targets[held_out],
    }


def init(key, data):
    """No intercept: all means are zero."""
    del key
    return jnp.zeros(data["inputs"].shape[1])


def objective(batch):
    # The model hands the weights through to the loss: so the Gauss-Newton matrix holds the penalty.
    loss = so.losses.total(so.squared_error(batch["targets"]), so.losses.half_sum_of_squares())
    return so.compose(loss, lambda params: (batch["inputs"] @ params, math.sqrt(PENALTY) * params))


def metrics(params, data):
    left = data["held_out_inputs"] @ params - data["held_out_targets"]
    return {"held_out_error": jnp.mean(left**2)}


def least() -> float:
    """``½ (yᵀy/N − bᵀ A⁻¹ b)`` with ``A = XᵀX/N + λI`` and ``b = Xᵀy/N``."""
    x, y = load()["inputs"], load()["targets"]
    a = x.T @ x / len(y) + PENALTY * np.eye(x.shape[1])
    b = x.T @ y / len(y)
    return float(y @ y / len(y) - b @ np.linalg.solve(a, b)) / 2


PROBLEM = Problem(
    name="ridge",
    title="Ridge regression on the diabetes data",
    description=(
        "442 patients, 10 standardised measurements, the progression of diabetes a year later; "
        f"354 for training, 88 held out. Mean squared error plus an L2 penalty of {PENALTY:g}, "
        "from zeros, in float64. Quadratic, so that one step of Newton ends it and the optimum is "
        "known in closed form. Two of the blood values nearly add up to a third: the condition "
        "number is 400."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=metrics,
    targets=(1e-2, 1e-4, 1e-8),
    optimum=least(),
    tuning_steps=500,
    steps={"first-order": 2000, "quasi-newton": 200, "matrix-free": 50, "dense": 20},
)
