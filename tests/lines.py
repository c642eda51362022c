"""A line fitted to a dozen points: the smallest problem that an experiment can be made of."""

import jax
import numpy as np
import optax

import secondorder as so
from experiments import cost
from experiments.optimizer import Look, Optimizer
from experiments.problem import Problem


def line_data():
    x = np.linspace(-1.0, 1.0, 12)
    return {"x": x, "y": 2.0 * x + 1.0, "held_out_x": x + 0.05}


def line_objective(batch):
    residual = lambda params: params[0] * batch["x"] + params[1] - batch["y"]
    return so.sum_of_squares(residual)


LINE = Problem(
    name="line",
    title="A line",
    description="A linear fit.",
    load=line_data,
    init=lambda key, data: jax.random.normal(key, (2,)),
    objective=line_objective,
    targets=(1e-2, 1e-8),
    steps={"first-order": 50, "quasi-newton": 50, "matrix-free": 50, "dense": 50},
    optimum=0.0,
    random_start=True,
)


def plain(build, **settings) -> Optimizer:
    return Optimizer(
        name="plain",
        label="Plain",
        build=build,
        step_class="first-order",
        step_cost=cost.gradient_only,
        look=Look("black", "solid", "o"),
        diagnose=lambda state: {},
        **settings,
    )


def sgd(rate: float) -> Optimizer:
    return plain(lambda: optax.with_extra_args_support(optax.sgd(rate)))
