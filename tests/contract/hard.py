"""Two dozen small problems with known answers, boxed, badly scaled, flat-tailed and singular.

All are one residual of three parameters with its data as arguments, so that a method is compiled
once for all of them: rows of a linear system, Rosenbrock's valley, and an exponential curve, each
with a weight. The parameters are divided by units of their own.
"""

import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.optimize

RNG = np.random.default_rng(7)
MATRIX = RNG.normal(size=(8, 3))
TARGET = RNG.normal(size=8)
TIMES = np.linspace(0.0, 2.0, 8)
CURVE = 2.0 * np.exp(-1.3 * TIMES) + 0.5 + 0.01 * np.cos(9 * TIMES)
FREE = (np.full(3, -np.inf), np.full(3, np.inf))


class Data(NamedTuple):
    """What makes a problem of the residual, all of it arguments of the compiled program."""

    units: Any
    matrix: Any
    target: Any
    valley: Any
    curve: Any
    values: Any


class Hard(NamedTuple):
    """A problem: its data, its start, its bounds, infinite where there are none."""

    data: Data
    start: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray] = FREE


def residual(data: Data, p, np=jnp):
    q = p / data.units
    linear = np.matmul(data.matrix, q) - data.target
    valley = data.valley * np.stack([10 * (q[1] - q[0] ** 2), 1 - q[0], 0.1 * (q[2] - q[1])])
    times = np.asarray(TIMES, q.dtype)
    curve = data.curve * (q[0] * np.exp(-q[1] * times) + q[2] - data.values)
    return np.concatenate([linear, valley, curve])


def linear(matrix=MATRIX, target=TARGET, units=(1.0, 1.0, 1.0)) -> Data:
    return Data(np.array(units), np.array(matrix), np.array(target), 0.0, 0.0, np.zeros(8))


def valley(units=(1.0, 1.0, 1.0)) -> Data:
    return Data(np.array(units), np.zeros((8, 3)), np.zeros(8), 1.0, 0.0, np.zeros(8))


def curve(values=CURVE, units=(1.0, 1.0, 1.0)) -> Data:
    return Data(np.array(units), np.zeros((8, 3)), np.zeros(8), 0.0, 1.0, np.array(values))


def box(lower, upper):
    return np.array(lower, float), np.array(upper, float)


ZERO = np.zeros(3)
INF = np.inf
MIXED, LARGE, SMALL = (1e4, 1.0, 1e-4), (1e5, 1e6, 1e5), (1e-5, 1e-6, 1e-5)
SINGULAR = np.stack([MATRIX[:, 0], MATRIX[:, 1], MATRIX[:, 0] + MATRIX[:, 1]], axis=1)
ABSENT = MATRIX * np.array([1.0, 1.0, 0.0])
VALLEY_START, CURVE_START = np.array([-1.2, 1.0, 1.0]), np.array([1.0, 1.0, 0.0])

OPEN = {
    "linear": Hard(linear(), ZERO),
    "linear in mixed units": Hard(linear(units=MIXED), ZERO),
    "linear of large parameters from zero": Hard(linear(units=LARGE), ZERO),
    "linear of small parameters from zero": Hard(linear(units=SMALL), ZERO),
    "linear of small values": Hard(linear(1e-4 * MATRIX, 1e-4 * TARGET), ZERO),
    "linear of large values": Hard(linear(1e4 * MATRIX, 1e4 * TARGET), ZERO),
    "linear that fits": Hard(linear(target=MATRIX @ [1.0, -2.0, 3.0]), ZERO),
    "singular": Hard(linear(SINGULAR), ZERO),
    "singular that fits": Hard(linear(SINGULAR, SINGULAR @ [1.0, -2.0, 3.0]), ZERO),
    "a parameter of nothing": Hard(linear(ABSENT), np.ones(3)),
    "valley": Hard(valley(), VALLEY_START),
    "valley in mixed units": Hard(valley(MIXED), VALLEY_START * np.array(MIXED)),
    "curve": Hard(curve(), CURVE_START),
    "curve in mixed units": Hard(curve(units=MIXED), CURVE_START * np.array(MIXED)),
    "curve from amplitude zero": Hard(curve(), np.array([0.0, 1.0, 0.0])),
    "curve from its flat tail": Hard(curve(), np.array([1.0, 30.0, 0.0])),
    "curve from a growing start": Hard(curve(), np.array([1.0, -2.0, 0.0])),
    "curve through a constant": Hard(curve(np.full(8, 0.7)), CURVE_START),
}

BOXED = {
    "linear, one bound active": Hard(linear(), ZERO, box([-INF, 0.1, -INF], [INF, INF, INF])),
    "linear, all bounds active": Hard(linear(), ZERO, box([2.0, 2.0, 2.0], [3.0, 3.0, 3.0])),
    "linear, no bound active": Hard(linear(), ZERO, box([-9.0] * 3, [9.0] * 3)),
    "linear in mixed units, boxed": Hard(
        linear(units=MIXED), ZERO, box([0.0, 0.0, 0.0], [1e4, 1.0, 1e-4])
    ),
    "one parameter held by equal bounds": Hard(
        linear(), np.array([0.0, 0.3, 0.0]), box([-INF, 0.3, -INF], [INF, 0.3, INF])
    ),
    "valley, the minimum outside": Hard(valley(), VALLEY_START, box([-2.0] * 3, [0.5, 2.0, 2.0])),
    "valley, the minimum in a corner": Hard(valley(), ZERO, box([-INF] * 3, [1.0, 1.0, 1.0])),
    "curve of bounded rate": Hard(curve(), CURVE_START, box([0.0, 0.0, 0.0], [5.0, 1.0, 5.0])),
    "singular, boxed": Hard(linear(SINGULAR), ZERO, box([0.0] * 3, [1.0] * 3)),
}

PROBLEMS = OPEN | BOXED


def value(problem: Hard, p) -> float:
    """``½ Σ r²`` in float64, infinite where it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        r = residual(problem.data, np.asarray(p, float), np)
        return float(0.5 * r @ r) if np.all(np.isfinite(r)) else np.inf


def improved(problem: Hard, p) -> float:
    """The value that SciPy reaches from a point inside the bounds, in float64; a held one stays."""
    lower, upper = problem.bounds
    p = np.clip(np.asarray(p, float), lower, upper)
    free = lower < upper

    def of_free(x):
        whole = p.copy()
        whole[free] = x
        with np.errstate(over="ignore", invalid="ignore"):
            return np.nan_to_num(residual(problem.data, whole, np), nan=1e150, posinf=1e150)

    units = np.asarray(problem.data.units)[free]
    with warnings.catch_warnings(action="ignore"):  # from far out SciPy's squares overflow
        result = scipy.optimize.least_squares(
            of_free, p[free], bounds=(lower[free], upper[free]), x_scale=units,
            xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=300,
        )  # fmt: skip
    return float(result.cost)
