"""Large, structured functions: n up to 1e5 and beyond, each evaluation O(n) in time and memory.

Every function below builds one problem of n parameters. Nothing dense is formed, and every known
minimum is known exactly, whatever n.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.testset import mgh_sized
from experiments.testset.classical import rosenbrock
from experiments.testset.record import TestProblem, like


@dataclass(frozen=True, eq=False)
class LargeProblem:
    """A function of n parameters and where to start on it."""

    name: str
    function: Callable[[jax.Array], jax.Array]
    start: np.ndarray
    """In float64; ``jnp.asarray`` makes it parameters."""
    minimum: float | None
    """The global minimum; None where there is no formula for it."""
    solution: np.ndarray | None = None
    """A global minimiser, where there is a formula for it."""
    residual: Callable[[jax.Array], jax.Array] | None = None
    """Where the function is a sum of squares: ``function(x) = Σ residual(x)²``."""

    @property
    def n(self) -> int:
        """The number of parameters."""
        return self.start.size


def _least_squares(name: str, problem: TestProblem, solution: np.ndarray | None) -> LargeProblem:
    start = np.array(problem.start)
    return LargeProblem(name, problem.function, start, 0.0, solution, problem.residual)


def extended_rosenbrock(n: int) -> LargeProblem:
    """n/2 separate valleys, all alike: a Hessian of 2 by 2 blocks."""
    return _least_squares("extended-rosenbrock", mgh_sized.extended_rosenbrock(n), np.ones(n))


def broyden_tridiagonal(n: int) -> LargeProblem:
    """A tridiagonal Jacobian; well conditioned."""
    return _least_squares("broyden-tridiagonal", mgh_sized.broyden_tridiagonal(n), None)


def chained_rosenbrock(n: int) -> LargeProblem:
    """One valley that turns n - 1 times: information travels one parameter an iteration.

    From four parameters on there is a local minimum near (-1, 1, …, 1), too.
    """

    def residual(x: jax.Array) -> jax.Array:
        return jnp.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]])

    start = np.resize([-1.2, 1.0], n)
    return LargeProblem("chained-rosenbrock", rosenbrock, start, 0.0, np.ones(n), residual)


def chained_wood(n: int) -> LargeProblem:
    """Wood's function of (x1, x2, x3, x4), (x3, x4, x5, x6), …; n is even and at least four.

    A. R. Conn, N. I. M. Gould, P. L. Toint: Testing a class of methods for solving minimization
    problems with simple bounds on the variables, Mathematics of Computation 50 (1988), 399-430,
    problem 8. From its start a method may well end in one of many local minima.
    """

    def residual(x: jax.Array) -> jax.Array:
        a, b = x[0:-2:2], x[1:-2:2]
        c, d = x[2::2], x[3::2]
        terms = [10 * (b - a**2), 1 - a, 90**0.5 * (d - c**2), 1 - c]
        return jnp.concatenate([*terms, 10**0.5 * (b + d - 2), (b - d) / 10**0.5])

    start = np.resize([-2.0, 0.0], n)
    start[:4] = -3.0, -1.0, -3.0, -1.0
    total = lambda x: jnp.sum(residual(x) ** 2)
    return LargeProblem("chained-wood", total, start, 0.0, np.ones(n), residual)


def eigenvalues(n: int, condition: float = 1e4) -> np.ndarray:
    """The spectrum of :func:`quadratic`: from one to ``condition``, evenly in the logarithm."""
    return np.geomspace(1, condition, n)


def quadratic(n: int, condition: float = 1e4) -> LargeProblem:
    """½ (x - 1)ᵀ A (x - 1), where A has the known :func:`eigenvalues` in a basis without zeros.

    The basis is a reflection ``I - 2 vvᵀ``, so that a product with A costs a few dot products.
    """
    spectrum = eigenvalues(n, condition)
    normal = np.cos(np.arange(n)) + 1.5
    normal /= np.linalg.norm(normal)

    def function(x: jax.Array) -> jax.Array:
        v, away = like(x, normal), x - 1
        turned = away - 2 * v * (v @ away)
        return like(x, spectrum) @ turned**2 / 2

    return LargeProblem("quadratic", function, np.zeros(n), 0.0, np.ones(n))


def nonlinear_poisson(n: int) -> LargeProblem:
    """∫ ½ |∇u|² + ¼ u⁴ - g u over the unit square, u = 0 on its edge; n is a square number.

    Strictly convex, in five-point differences. The load g is made so that the minimiser is
    8 sin(πs) sin(2πt) on the grid, exactly.
    """
    side = _side(n)
    h = 1 / (side + 1)
    s = h * np.arange(1, side + 1)
    solution = 8 * np.outer(np.sin(np.pi * s), np.sin(2 * np.pi * s))
    edged = np.pad(solution, 1)
    neighbours = edged[2:, 1:-1] + edged[:-2, 1:-1] + edged[1:-1, 2:] + edged[1:-1, :-2]
    load = 4 * solution - neighbours + h**2 * solution**3  # h² g

    def function(x: jax.Array) -> jax.Array:
        u = x.reshape(side, side)
        edged = jnp.pad(u, 1)
        slopes = jnp.sum(jnp.diff(edged, axis=0) ** 2) + jnp.sum(jnp.diff(edged, axis=1) ** 2)
        return slopes / 2 + jnp.sum(h**2 / 4 * u**4 - like(x, load) * u)

    slopes = np.sum(np.diff(edged, axis=0) ** 2) + np.sum(np.diff(edged, axis=1) ** 2)
    minimum = slopes / 2 + np.sum(h**2 / 4 * solution**4 - load * solution)
    return LargeProblem(
        "nonlinear-poisson", function, np.zeros(n), minimum.item(), solution.ravel()
    )


def scherk(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The height of Scherk's minimal surface."""
    return np.log(np.cos(t) / np.cos(s))


def minimal_surface(
    n: int, edge: Callable[[np.ndarray, np.ndarray], np.ndarray] = scherk
) -> LargeProblem:
    """The area of a triangulated surface over [-1, 1]² with a given edge; n is a square number.

    Convex. As n grows, the minimum tends to the area of the true minimal surface, by default
    Scherk's.
    """
    side = _side(n)
    h = 2 / (side + 1)
    grid = np.linspace(-1, 1, side + 2)
    frame = np.array(edge(*np.meshgrid(grid, grid, indexing="ij")), float)
    frame[1:-1, 1:-1] = 0

    def function(x: jax.Array) -> jax.Array:
        z = like(x, frame) + jnp.pad(x.reshape(side, side), 1)
        down, along = jnp.diff(z, axis=0) / h, jnp.diff(z, axis=1) / h
        upper = 1 + down[:, :-1] ** 2 + along[:-1] ** 2
        lower = 1 + down[:, 1:] ** 2 + along[1:] ** 2
        return h**2 / 2 * jnp.sum(jnp.sqrt(upper) + jnp.sqrt(lower))

    return LargeProblem("minimal-surface", function, np.zeros(n), None)


def _side(n: int) -> int:
    side = math.isqrt(n)
    if side**2 != n:
        raise ValueError(f"a square grid has a square number of points, {n} is none: try {side**2}")
    return side


LARGE: dict[str, Callable[[int], LargeProblem]] = {
    "extended-rosenbrock": extended_rosenbrock,
    "chained-rosenbrock": chained_rosenbrock,
    "chained-wood": chained_wood,
    "broyden-tridiagonal": broyden_tridiagonal,
    "quadratic": quadratic,
    "nonlinear-poisson": nonlinear_poisson,
    "minimal-surface": minimal_surface,
}
