"""Classical functions of two parameters.

Formulas are the customary ones; minima are carried on to double precision. Starts are the customary
ones where there is a custom, and otherwise some way off, not always in the best valley.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Minimum(NamedTuple):
    point: tuple[float, ...]
    value: float


@dataclass(frozen=True)
class Classical:
    """A smooth function with its minima, a box to draw it in and a start."""

    name: str
    function: Callable[[jax.Array], jax.Array]
    """A vector ↦ its value, in the dtype of the vector; over a grid through ``jax.vmap``."""
    minima: tuple[Minimum, ...]
    """Those in the box, the least first; of the first five, the global one alone."""
    box: tuple[tuple[float, float], ...]
    start: tuple[float, ...]

    @property
    def n(self) -> int:
        """The number of parameters."""
        return len(self.start)


# ---------------------------------------------------------------------- of any number of parameters


def rosenbrock(x: jax.Array) -> jax.Array:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def styblinski_tang(x: jax.Array) -> jax.Array:
    return jnp.sum(x**4 - 16 * x**2 + 5 * x) / 2


def rastrigin(x: jax.Array) -> jax.Array:
    return jnp.sum(10 + x**2 - 10 * jnp.cos(2 * np.pi * x))


def levy(x: jax.Array) -> jax.Array:
    w = 1 + (x - 1) / 4
    first = jnp.sin(np.pi * w[0]) ** 2
    middle = (w[:-1] - 1) ** 2 * (1 + 10 * jnp.sin(np.pi * w[:-1] + 1) ** 2)
    last = (w[-1] - 1) ** 2 * (1 + jnp.sin(2 * np.pi * w[-1]) ** 2)
    return first + jnp.sum(middle) + last


def ackley(x: jax.Array) -> jax.Array:
    """A cone at its minimum: the gradient there is set to zero, the middle of all slopes."""
    square = jnp.mean(x**2)
    away = square > 0
    radius = jnp.where(away, jnp.sqrt(jnp.where(away, square, 1)), 0)
    return -20 * jnp.expm1(-radius / 5) - np.e * jnp.expm1(jnp.mean(jnp.cos(2 * np.pi * x)) - 1)


# -------------------------------------------------------------------------------- of two parameters


def beale(p: jax.Array) -> jax.Array:
    x, y = p
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def himmelblau(p: jax.Array) -> jax.Array:
    x, y = p
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def booth(p: jax.Array) -> jax.Array:
    x, y = p
    return (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2


def matyas(p: jax.Array) -> jax.Array:
    x, y = p
    return 0.26 * (x**2 + y**2) - 0.48 * x * y


def three_hump_camel(p: jax.Array) -> jax.Array:
    x, y = p
    return 2 * x**2 - 1.05 * x**4 + x**6 / 6 + x * y + y**2


def six_hump_camel(p: jax.Array) -> jax.Array:
    x, y = p
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + 4 * (y**2 - 1) * y**2


def goldstein_price(p: jax.Array) -> jax.Array:
    x, y = p
    near = 19 - 14 * x + 3 * x**2 - 14 * y + 6 * x * y + 3 * y**2
    far = 18 - 32 * x + 12 * x**2 + 48 * y - 36 * x * y + 27 * y**2
    return (1 + (x + y + 1) ** 2 * near) * (30 + (2 * x - 3 * y) ** 2 * far)


def mccormick(p: jax.Array) -> jax.Array:
    x, y = p
    return jnp.sin(x + y) + (x - y) ** 2 - 1.5 * x + 2.5 * y + 1


def branin(p: jax.Array) -> jax.Array:
    x, y = p
    parabola = y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6
    return parabola**2 + 10 * (1 - 1 / (8 * np.pi)) * jnp.cos(x) + 10


# ---------------------------------------------------------------------------------------- the lists


def _planar(
    name: str,
    function: Callable[[jax.Array], jax.Array],
    minima: Sequence[tuple[float, float, float]],
    box: tuple[float, float, float, float],
    start: tuple[float, float],
) -> Classical:
    """Minima as x, y and value; the box as two ends of x and two of y."""
    found = tuple(Minimum((x, y), value) for x, y, value in minima)
    return Classical(name, function, found, (box[:2], box[2:]), start)


def _opposite(x: float, y: float, value: float) -> list[tuple[float, float, float]]:
    """A minimum of a function that is even in (x, y), and the one across the origin."""
    return [(x, y, value), (-x, -y, value)]


THIRD = np.pi / 3

ROOT, LOWEST = -2.903534027771177, -78.33233140754282  # the least root of 4x³ - 32x + 5

PLANAR = (
    _planar("rosenbrock", rosenbrock, [(1.0, 1.0, 0.0)], (-2.0, 2.0, -2.0, 2.0), (-1.2, 1.0)),
    _planar(
        "styblinski-tang",
        styblinski_tang,
        [(ROOT, ROOT, LOWEST)],
        (-5.0, 5.0, -5.0, 5.0),
        (0.0, 0.0),
    ),
    _planar("rastrigin", rastrigin, [(0.0, 0.0, 0.0)], (-5.12, 5.12, -5.12, 5.12), (3.3, 1.8)),
    _planar("levy", levy, [(1.0, 1.0, 0.0)], (-10.0, 10.0, -10.0, 10.0), (-4.0, 5.0)),
    _planar("ackley", ackley, [(0.0, 0.0, 0.0)], (-5.0, 5.0, -5.0, 5.0), (2.2, -1.3)),
    _planar("beale", beale, [(3.0, 0.5, 0.0)], (-4.5, 4.5, -4.5, 4.5), (1.0, 1.0)),
    _planar(
        "himmelblau",
        himmelblau,
        [
            (3.0, 2.0, 0.0),
            (-2.805118086952745, 3.131312518250573, 0.0),
            (-3.779310253377747, -3.283185991286169, 0.0),
            (3.5844283403304917, -1.8481265269644034, 0.0),
        ],
        (-5.0, 5.0, -5.0, 5.0),
        (0.0, 0.0),
    ),
    _planar("booth", booth, [(1.0, 3.0, 0.0)], (-10.0, 10.0, -10.0, 10.0), (-5.0, -5.0)),
    _planar("matyas", matyas, [(0.0, 0.0, 0.0)], (-10.0, 10.0, -10.0, 10.0), (8.0, -4.0)),
    _planar(
        "three-hump-camel",
        three_hump_camel,
        [(0.0, 0.0, 0.0), *_opposite(1.7475523458302893, -0.8737761729151446, 0.2986384422368604)],
        (-2.5, 2.5, -2.5, 2.5),
        (-2.0, 2.0),
    ),
    _planar(
        "six-hump-camel",
        six_hump_camel,
        [
            *_opposite(0.08984201310031806, -0.7126564030207396, -1.0316284534898774),
            *_opposite(1.7036067149699807, -0.7960835686726251, -0.21546382438371725),
            *_opposite(1.6071047529201972, 0.5686514548841314, 2.104250310311258),
        ],
        (-2.0, 2.0, -1.2, 1.2),
        (-1.5, 1.0),
    ),
    _planar(
        "goldstein-price",
        goldstein_price,
        [(0.0, -1.0, 3.0), (-0.6, -0.4, 30.0), (1.8, 0.2, 84.0), (1.2, 0.8, 840.0)],
        (-2.0, 2.0, -2.0, 2.0),
        (-1.5, 0.5),
    ),
    _planar(
        "mccormick",
        mccormick,
        [
            (0.5 - THIRD, -0.5 - THIRD, -(3**0.5) / 2 - THIRD),
            (0.5 + 2 * THIRD, -0.5 + 2 * THIRD, -(3**0.5) / 2 + 2 * THIRD),
        ],
        (-1.5, 4.0, -3.0, 4.0),
        (0.0, 0.0),
    ),
    _planar(
        "branin",
        branin,
        [(x, y, 1.25 / np.pi) for x, y in ((-np.pi, 12.275), (np.pi, 2.275), (3 * np.pi, 2.475))],
        (-5.0, 10.0, 0.0, 15.0),
        (2.5, 7.5),
    ),
)

CLASSICAL: dict[str, Classical] = {problem.name: problem for problem in PLANAR}
