"""Moré, Garbow and Hillstrom: curves fitted to measurements, printed with the paper."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.testset.record import TestProblem, like


def numbers(text: str) -> np.ndarray:
    """A printed column of figures."""
    return np.array(text.split(), float)


BARD = numbers("0.14 0.18 0.22 0.25 0.29 0.32 0.35 0.39 0.37 0.58 0.73 0.96 1.34 2.10 4.39")

GAUSSIAN = numbers("0.0009 0.0044 0.0175 0.0540 0.1295 0.2420 0.3521 0.3989")  # then back down

MEYER = numbers(
    "34780 28610 23650 19630 16370 13720 11540 9744 8261 7030 6005 5147 4427 3820 3307 2872"
)

KOWALIK_OSBORNE = (
    numbers("4 2 1 0.5 0.25 0.167 0.125 0.1 0.0833 0.0714 0.0625"),
    numbers("0.1957 0.1947 0.1735 0.1600 0.0844 0.0627 0.0456 0.0342 0.0323 0.0235 0.0246"),
)

OSBORNE_1 = numbers(
    """
    0.844 0.908 0.932 0.936 0.925 0.908 0.881 0.850 0.818 0.784 0.751 0.718 0.685 0.658 0.628 0.603
    0.580 0.558 0.538 0.522 0.506 0.490 0.478 0.467 0.457 0.448 0.438 0.431 0.424 0.420 0.414 0.411
    0.406
    """
)

OSBORNE_2 = numbers(
    """
    1.366 1.191 1.112 1.013 0.991 0.885 0.831 0.847 0.786 0.725 0.746 0.679 0.608 0.655 0.616 0.606
    0.602 0.626 0.651 0.724 0.649 0.649 0.694 0.644 0.624 0.661 0.612 0.558 0.533 0.495 0.500 0.423
    0.395 0.375 0.372 0.391 0.396 0.405 0.428 0.429 0.523 0.562 0.607 0.653 0.672 0.708 0.633 0.668
    0.645 0.632 0.591 0.559 0.597 0.625 0.739 0.710 0.729 0.720 0.636 0.581 0.428 0.292 0.162 0.098
    0.054
    """
)


def bard(x: jax.Array) -> jax.Array:
    x1, x2, x3 = x
    u = np.arange(1, 16)
    v = 16 - u
    w = np.minimum(u, v)
    return like(x, BARD) - (x1 + like(x, u) / (like(x, v) * x2 + like(x, w) * x3))


def gaussian(x: jax.Array) -> jax.Array:
    x1, x2, x3 = x
    t = like(x, (8 - np.arange(1, 16)) / 2)
    y = like(x, np.concatenate([GAUSSIAN, GAUSSIAN[-2::-1]]))
    return x1 * jnp.exp(-x2 * (t - x3) ** 2 / 2) - y


def meyer(x: jax.Array) -> jax.Array:
    x1, x2, x3 = x
    t = like(x, 45 + 5 * np.arange(1, 17))
    return x1 * jnp.exp(x2 / (t + x3)) - like(x, MEYER)


def kowalik_osborne(x: jax.Array) -> jax.Array:
    x1, x2, x3, x4 = x
    u, y = (like(x, column) for column in KOWALIK_OSBORNE)
    return y - x1 * (u**2 + u * x2) / (u**2 + u * x3 + x4)


def osborne_1(x: jax.Array) -> jax.Array:
    x1, x2, x3, x4, x5 = x
    t = like(x, 10 * np.arange(33))
    return like(x, OSBORNE_1) - (x1 + x2 * jnp.exp(-t * x4) + x3 * jnp.exp(-t * x5))


def osborne_2(x: jax.Array) -> jax.Array:
    heights, rates, centres = x[:4], x[4:8], x[8:]
    t = like(x, np.arange(65) / 10)
    decay = jnp.exp(-t * rates[0])
    peaks = jnp.exp(-((t - centres[:, None]) ** 2) * rates[1:, None])
    return like(x, OSBORNE_2) - heights[0] * decay - heights[1:] @ peaks


# The last minimum of 8 and 15 is the limit of f along a valley to infinity.
PROBLEMS = (
    TestProblem(8, "bard", bard, (1.0, 1.0, 1.0), (8.214877307e-3, 17.42869333)),
    TestProblem(9, "gaussian", gaussian, (0.4, 1.0, 0.0), (1.127932770e-8,)),
    TestProblem(10, "meyer", meyer, (0.02, 4000.0, 250.0), (87.94585517,)),
    TestProblem(
        15,
        "kowalik-osborne",
        kowalik_osborne,
        (0.25, 0.39, 0.415, 0.39),
        (3.075056038e-4, 1.027343049e-3),
    ),
    TestProblem(17, "osborne-1", osborne_1, (0.5, 1.5, -1.0, 0.01, 0.02), (5.464894697e-5,)),
    TestProblem(
        19,
        "osborne-2",
        osborne_2,
        (1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5),
        (4.013773629e-2,),
    ),
)
