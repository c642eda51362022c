"""Rosenbrock's curved valley as least squares: two parameters, one picture."""

import jax.numpy as jnp

import secondorder as so
from experiments.figures import paths_on_surface, paths_over_contours
from experiments.problem import Problem

START = (-1.2, 1.0)


def residual(point):
    x, y = point[0], point[1]
    return jnp.stack([10.0 * (y - x**2), 1.0 - x])


def value(x, y):
    """The objective over a grid, for the pictures."""
    return 50.0 * (y - x**2) ** 2 + 0.5 * (1.0 - x) ** 2


def load():
    return {}


def init(key, data):
    del key, data
    return jnp.asarray(START, jnp.float64)


def objective(batch):
    del batch
    return so.sum_of_squares(residual)


def metrics(point, data):
    del data
    return {"x": point[0], "y": point[1]}


PROBLEM = Problem(
    name="rosenbrock",
    title="Rosenbrock's valley",
    description=(
        "Half the sum of squares of 10 (y - x²) and 1 - x, from (-1.2, 1) to the minimum at "
        "(1, 1), in float64. A long, curved, nearly flat valley: the classic picture of why "
        "the gradient alone points the wrong way."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=metrics,
    targets=(1e-2, 1e-4, 1e-8),
    optimum=0.0,
    tuning_steps=3000,
    step_unit=1e-3,
    steps={"first-order": 3000, "quasi-newton": 300, "matrix-free": 200, "dense": 100},
    pictures=(paths_over_contours(value), paths_on_surface(value)),
)
