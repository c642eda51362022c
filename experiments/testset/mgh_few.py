"""Moré, Garbow and Hillstrom: the problems with a fixed, small number of parameters and no data.

Each function is named after its problem and spells the formula out; t is the abscissa and y the
ordinate wherever a curve is fitted. Starts and minima are those of the paper.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.testset.record import TestProblem, like


def rosenbrock(x: jax.Array) -> jax.Array:
    x1, x2 = x
    return jnp.stack([10 * (x2 - x1**2), 1 - x1])


def freudenstein_roth(x: jax.Array) -> jax.Array:
    x1, x2 = x
    return jnp.stack([-13 + x1 + ((5 - x2) * x2 - 2) * x2, -29 + x1 + ((x2 + 1) * x2 - 14) * x2])


def powell_badly_scaled(x: jax.Array) -> jax.Array:
    x1, x2 = x
    return jnp.stack([1e4 * x1 * x2 - 1, jnp.exp(-x1) + jnp.exp(-x2) - 1.0001])


def brown_badly_scaled(x: jax.Array) -> jax.Array:
    x1, x2 = x
    return jnp.stack([x1 - 1e6, x2 - 2e-6, x1 * x2 - 2])


def beale(x: jax.Array) -> jax.Array:
    x1, x2 = x
    return like(x, [1.5, 2.25, 2.625]) - x1 * (1 - jnp.stack([x2, x2**2, x2**3]))


def jennrich_sampson(x: jax.Array) -> jax.Array:
    i = like(x, np.arange(1, 11))
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x: jax.Array) -> jax.Array:
    """θ is the angle of (x1, x2) in turns, from -1/4 to 3/4.

    The paper has arctan(x2/x1)/2π, and half a turn more where x1 < 0. The angle is measured here
    from the x2 axis instead, which is the same function, smooth at x1 = 0 and at the start, where
    the cut of an ordinary arctan2 would lie.
    """
    x1, x2, x3 = x
    theta = 0.25 + jnp.arctan2(-x1, x2) / (2 * np.pi)
    return jnp.stack([10 * (x3 - 10 * theta), 10 * (jnp.hypot(x1, x2) - 1), x3])


def gulf(x: jax.Array) -> jax.Array:
    """The paper's "y_i m i x_2" is a misprint of "y_i - x_2"."""
    x1, x2, x3 = x
    t = np.arange(1, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return jnp.exp(-(jnp.abs(like(x, y) - x2) ** x3) / x1) - like(x, t)


def box(x: jax.Array) -> jax.Array:
    x1, x2, x3 = x
    t = np.arange(1, 11) / 10
    known = like(x, np.exp(-t) - np.exp(-10 * t))
    t = like(x, t)
    return jnp.exp(-t * x1) - jnp.exp(-t * x2) - x3 * known


def powell_singular(x: jax.Array) -> jax.Array:
    x1, x2, x3, x4 = x
    return jnp.stack(
        [x1 + 10 * x2, 5**0.5 * (x3 - x4), (x2 - 2 * x3) ** 2, 10**0.5 * (x1 - x4) ** 2]
    )


def wood(x: jax.Array) -> jax.Array:
    x1, x2, x3, x4 = x
    return jnp.stack(
        [
            10 * (x2 - x1**2),
            1 - x1,
            90**0.5 * (x4 - x3**2),
            1 - x3,
            10**0.5 * (x2 + x4 - 2),
            (x2 - x4) / 10**0.5,
        ]
    )


def brown_dennis(x: jax.Array) -> jax.Array:
    x1, x2, x3, x4 = x
    t = like(x, np.arange(1, 21) / 5)
    return (x1 + t * x2 - jnp.exp(t)) ** 2 + (x3 + x4 * jnp.sin(t) - jnp.cos(t)) ** 2


def biggs_exp6(x: jax.Array) -> jax.Array:
    x1, x2, x3, x4, x5, x6 = x
    t = np.arange(1, 14) / 10
    y = like(x, np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t))
    t = like(x, t)
    return x3 * jnp.exp(-t * x1) - x4 * jnp.exp(-t * x2) + x6 * jnp.exp(-t * x5) - y


# The last minimum of 5, 6, 12 and 18 is the limit of f along a valley to infinity.
PROBLEMS = (
    TestProblem(1, "rosenbrock", rosenbrock, (-1.2, 1.0), (0.0,)),
    TestProblem(2, "freudenstein-roth", freudenstein_roth, (0.5, -2.0), (0.0, 48.98425368)),
    TestProblem(3, "powell-badly-scaled", powell_badly_scaled, (0.0, 1.0), (0.0,)),
    TestProblem(4, "brown-badly-scaled", brown_badly_scaled, (1.0, 1.0), (0.0,)),
    TestProblem(5, "beale", beale, (1.0, 1.0), (0.0, 0.452009)),
    TestProblem(6, "jennrich-sampson", jennrich_sampson, (0.3, 0.4), (124.3621824, 259.580)),
    TestProblem(7, "helical-valley", helical_valley, (-1.0, 0.0, 0.0), (0.0,)),
    TestProblem(11, "gulf", gulf, (5.0, 2.5, 0.15), (0.0,)),
    TestProblem(12, "box", box, (0.0, 10.0, 20.0), (0.0, 0.0755887)),
    TestProblem(13, "powell-singular", powell_singular, (3.0, -1.0, 0.0, 1.0), (0.0,)),
    TestProblem(14, "wood", wood, (-3.0, -1.0, -3.0, -1.0), (0.0,)),
    TestProblem(16, "brown-dennis", brown_dennis, (25.0, 5.0, -5.0, -1.0), (85822.20163,)),
    TestProblem(
        18,
        "biggs-exp6",
        biggs_exp6,
        (1.0, 2.0, 1.0, 1.0, 1.0, 1.0),
        (0.0, 5.655649925e-3, 0.306367),
    ),
)
