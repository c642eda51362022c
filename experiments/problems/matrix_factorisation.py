"""A photograph as a product of two thin matrices: not convex, and yet no wrong minimum."""

import functools

import jax
import numpy as np

import secondorder as so
from experiments.problem import Problem
from experiments.problems.photographs import grey

RANK = 3
BLOCK = 16  # pixels along a side that become one number
DEVIATION = 0.1  # of the parameters at the start


@functools.cache
def load():
    """Block means of the first photograph, less their mean; rows by number."""
    image = grey()[0]
    rows, columns = (side // BLOCK for side in image.shape)
    cut = image[: rows * BLOCK, : columns * BLOCK]
    matrix = cut.reshape(rows, BLOCK, columns, BLOCK).mean((1, 3))
    return {"matrix": matrix - matrix.mean(), "row": np.arange(rows)}


def init(key, data):
    left, right = jax.random.split(key)
    rows, columns = data["matrix"].shape
    return {
        "left": DEVIATION * jax.random.normal(left, (rows, RANK), float),
        "right": DEVIATION * jax.random.normal(right, (columns, RANK), float),
    }


def row(params, index):
    """One row of ``L Rᵀ``."""
    return params["right"] @ params["left"][index]


def objective(batch):
    return so.per_example(so.squared_error(batch["matrix"]), row, batch["row"])


def least() -> float:
    """What the truncated singular value decomposition leaves (Eckart and Young)."""
    matrix = load()["matrix"]
    singular = np.linalg.svd(matrix, compute_uv=False)
    return float(np.sum(singular[RANK:] ** 2)) / (2 * len(matrix))


PROBLEM = Problem(
    name="matrix-factorisation",
    title="A photograph as a product of thin matrices",
    description=(
        "A photograph of a temple in 26 x 40 grey blocks, less their mean, by the product of a "
        f"26 x {RANK} and a {RANK} x 40 matrix: 198 parameters, squared error, a mean over rows, "
        f"from random matrices of standard deviation {DEVIATION:g}, in float64. Not convex: zero "
        "is a saddle, and an invertible matrix between the two factors changes nothing, so that "
        "every Hessian at a solution has nine zero eigenvalues. But all local minima are global, "
        "and the singular value decomposition gives the least value in closed form."
    ),
    load=load,
    init=init,
    objective=objective,
    targets=(1e-2, 1e-4, 1e-8),
    optimum=least(),
    random_start=True,
    tuning_steps=500,
    steps={"first-order": 2000, "quasi-newton": 300, "matrix-free": 60, "dense": 60},
)
