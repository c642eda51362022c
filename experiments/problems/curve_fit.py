"""A rational curve through 37 measurements: few parameters on very different scales."""

import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.figures import fitted_curve
from experiments.problem import Problem

# Thurber's semiconductor electron mobility against the logarithm of density, from the NIST
# Statistical Reference Datasets for nonlinear regression (public domain). NIST certifies a residual
# sum of squares of 5.6427082397e+03 and rates the problem "higher difficulty".
LOG_DENSITY = (
    -3.067, -2.981, -2.921, -2.912, -2.840, -2.797, -2.702, -2.699, -2.633, -2.481, -2.363,
    -2.322, -1.501, -1.460, -1.274, -1.212, -1.100, -1.046, -0.915, -0.714, -0.566, -0.545,
    -0.400, -0.309, -0.109, -0.103, 0.010, 0.119, 0.377, 0.790, 0.963, 1.006, 1.115, 1.572, 1.841,
    2.047, 2.200,
)  # fmt: skip
MOBILITY = (
    80.574, 84.248, 87.264, 87.195, 89.076, 89.608, 89.868, 90.101, 92.405, 95.854, 100.696,
    101.060, 401.672, 390.724, 567.534, 635.316, 733.054, 759.087, 894.206, 990.785, 1090.109,
    1080.914, 1122.643, 1178.351, 1260.531, 1273.514, 1288.339, 1327.543, 1353.863, 1414.509,
    1425.208, 1421.384, 1442.962, 1464.350, 1468.705, 1447.894, 1457.628,
)  # fmt: skip
START = (1000.0, 1000.0, 400.0, 40.0, 0.7, 0.3, 0.03)  # NIST's first, farther starting point
CERTIFIED_SUM_OF_SQUARES = 5.6427082397e03


def load():
    return {"x": np.asarray(LOG_DENSITY), "y": np.asarray(MOBILITY)}


def init(key, data):
    del key, data
    return jnp.asarray(START, jnp.float64)


def curve(params, x):
    numerator = params[0] + x * (params[1] + x * (params[2] + x * params[3]))
    return numerator / (1 + x * (params[4] + x * (params[5] + x * params[6])))


def objective(batch):
    return so.sum_of_squares(lambda params: curve(params, batch["x"]) - batch["y"])


def metrics(params, data):
    del data
    return {f"b{index + 1}": value for index, value in enumerate(params)}


PROBLEM = Problem(
    name="curve-fit",
    title="A rational curve fit: electron mobility",
    description=(
        "Mobility of electrons in a semiconductor against the logarithm of their density: 37 "
        "measurements, a cubic over a cubic, seven parameters between 0.03 and 1,000, in "
        "float64, from the farther of NIST's two starting points (Thurber, NIST Statistical "
        "Reference Datasets). Half the sum of squared residuals. The parameters differ by "
        "orders of magnitude, as those of a nonlinear fit usually do, and far from the "
        "solution the Hessian is indefinite."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=metrics,
    targets=(1e-2, 1e-4, 1e-8),
    steps={"first-order": 2000, "quasi-newton": 300, "matrix-free": 300, "dense": 200},
    optimum=0.5 * CERTIFIED_SUM_OF_SQUARES,
    step_unit=1e-9,
    tuning_steps=2000,
    grad_norm_target=1e-2,  # the gradient at the start is of size 1e8
    pictures=(fitted_curve(curve),),
)
