"""Moré, Garbow and Hillstrom: the problems of any size n, each as a function of n."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.testset.record import TestProblem, like


def watson(n: int) -> TestProblem:
    """A polynomial of degree n - 1 for u' = 1 + u², u(0) = 0, in 30 points of [0, 1]."""
    t, j = np.arange(1, 30)[:, None] / 29, np.arange(n)
    powers = t**j
    slopes = np.concatenate([np.zeros((29, 1)), j[1:] * powers[:, :-1]], axis=1)

    def residual(x: jax.Array) -> jax.Array:
        equations = like(x, slopes) @ x - (like(x, powers) @ x) ** 2 - 1
        return jnp.append(equations, jnp.stack([x[0], x[1] - x[0] ** 2 - 1]))

    minima = {6: (2.287670054e-3,), 9: (1.399760138e-6,), 12: (4.722381e-10,)}
    return TestProblem(20, f"watson-{n}", residual, (0.0,) * n, minima.get(n, ()))


def extended_rosenbrock(n: int) -> TestProblem:
    """Rosenbrock's function of each pair of parameters; n is even."""

    def residual(x: jax.Array) -> jax.Array:
        odd, even = x[0::2], x[1::2]
        return jnp.stack([10 * (even - odd**2), 1 - odd], axis=1).ravel()

    start = (-1.2, 1.0) * (n // 2)
    return TestProblem(21, f"extended-rosenbrock-{n}", residual, start, (0.0,))


def extended_powell_singular(n: int) -> TestProblem:
    """Powell's singular function of each four parameters; n is a multiple of four."""

    def residual(x: jax.Array) -> jax.Array:
        a, b, c, d = x.reshape(-1, 4).T
        terms = [a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2]
        return jnp.stack(terms, axis=1).ravel()

    start = (3.0, -1.0, 0.0, 1.0) * (n // 4)
    return TestProblem(22, f"extended-powell-singular-{n}", residual, start, (0.0,))


def penalty_1(n: int) -> TestProblem:
    """Near one at little cost, on a sphere at a high one."""

    def residual(x: jax.Array) -> jax.Array:
        return jnp.append(1e-5**0.5 * (x - 1), x @ x - 0.25)

    start = tuple(map(float, range(1, n + 1)))
    minima = {4: (2.249977501e-5,), 10: (7.087651467e-5,)}
    return TestProblem(23, f"penalty-1-{n}", residual, start, minima.get(n, ()))


def penalty_2(n: int) -> TestProblem:
    """As penalty 1, with sums of exponentials and an ellipsoid."""
    i = np.arange(1, n + 1)
    y = np.exp(i[1:] / 10) + np.exp(i[:-1] / 10)

    def residual(x: jax.Array) -> jax.Array:
        grown = jnp.exp(x / 10)
        pairs = grown[1:] + grown[:-1] - like(x, y)
        singles = grown[1:] - np.exp(-0.1).item()
        weak = 1e-5**0.5 * jnp.concatenate([pairs, singles])
        return jnp.concatenate([x[:1] - 0.2, weak, (like(x, i[::-1]) @ x**2 - 1)[None]])

    minima = {4: (9.376293007e-6,), 10: (2.936605375e-4,)}
    return TestProblem(24, f"penalty-2-{n}", residual, (0.5,) * n, minima.get(n, ()))


def variably_dimensioned(n: int) -> TestProblem:
    """A sphere, and one direction to the second and to the fourth power."""
    i = np.arange(1, n + 1)

    def residual(x: jax.Array) -> jax.Array:
        total = like(x, i) @ (x - 1)
        return jnp.append(x - 1, jnp.stack([total, total**2]))

    start = tuple(1 - j / n for j in range(1, n + 1))
    return TestProblem(25, f"variably-dimensioned-{n}", residual, start, (0.0,))


def trigonometric(n: int) -> TestProblem:
    """Zero at the origin, and many local minima around it."""
    i = np.arange(1, n + 1)

    def residual(x: jax.Array) -> jax.Array:
        return n - jnp.sum(jnp.cos(x)) + like(x, i) * (1 - jnp.cos(x)) - jnp.sin(x)

    minima = {10: (0.0, 2.795056122e-5)}
    return TestProblem(26, f"trigonometric-{n}", residual, (1 / n,) * n, minima.get(n, (0.0,)))


def brown_almost_linear(n: int) -> TestProblem:
    """Linear but for one product; f = 1 at (0, …, 0, n + 1)."""

    def residual(x: jax.Array) -> jax.Array:
        return jnp.append(x[:-1] + jnp.sum(x) - (n + 1), jnp.prod(x) - 1)

    return TestProblem(27, f"brown-almost-linear-{n}", residual, (0.5,) * n, (0.0, 1.0))


def discrete_boundary_value(n: int) -> TestProblem:
    """u'' = (u + t + 1)³/2 with u(0) = u(1) = 0, in differences."""
    h = 1 / (n + 1)
    t = h * np.arange(1, n + 1)

    def residual(x: jax.Array) -> jax.Array:
        u = jnp.pad(x, 1)
        return 2 * x - u[:-2] - u[2:] + h**2 * (x + like(x, t) + 1) ** 3 / 2

    start = tuple((t * (t - 1)).tolist())
    return TestProblem(28, f"discrete-boundary-value-{n}", residual, start, (0.0,))


def discrete_integral_equation(n: int) -> TestProblem:
    """The same equation through its Green's function; every parameter meets every other."""
    h = 1 / (n + 1)
    t = h * np.arange(1, n + 1)

    def residual(x: jax.Array) -> jax.Array:
        s = like(x, t)
        cubes = (x + s + 1) ** 3
        below = jnp.cumsum(s * cubes)
        above = jnp.cumsum(((1 - s) * cubes)[::-1])[::-1] - (1 - s) * cubes
        return x + h * ((1 - s) * below + s * above) / 2

    start = tuple((t * (t - 1)).tolist())
    return TestProblem(29, f"discrete-integral-equation-{n}", residual, start, (0.0,))


def broyden_tridiagonal(n: int) -> TestProblem:
    """Each equation holds a parameter and its two neighbours."""

    def residual(x: jax.Array) -> jax.Array:
        u = jnp.pad(x, 1)
        return (3 - 2 * x) * x - u[:-2] - 2 * u[2:] + 1

    return TestProblem(30, f"broyden-tridiagonal-{n}", residual, (-1.0,) * n, (0.0,))


def broyden_banded(n: int) -> TestProblem:
    """Each equation holds a parameter, five before it and one after."""

    def residual(x: jax.Array) -> jax.Array:
        terms = jnp.pad(x * (1 + x), (5, 1))
        others = sum(terms[k : k + n] for k in (0, 1, 2, 3, 4, 6))
        return x * (2 + 5 * x**2) + 1 - others

    return TestProblem(31, f"broyden-banded-{n}", residual, (-1.0,) * n, (0.0,))


def linear_full_rank(n: int, m: int) -> TestProblem:
    """Solved by -1 in every parameter."""

    def residual(x: jax.Array) -> jax.Array:
        return jnp.pad(x, (0, m - n)) - 2 / m * jnp.sum(x) - 1

    return TestProblem(32, f"linear-full-rank-{n}", residual, (1.0,) * n, (float(m - n),))


def linear_rank_1(n: int, m: int) -> TestProblem:
    """Singular everywhere: all the solutions of one linear equation."""
    i, j = np.arange(1, m + 1), np.arange(1, n + 1)

    def residual(x: jax.Array) -> jax.Array:
        return like(x, i) * (like(x, j) @ x) - 1

    minimum = m * (m - 1) / (2 * (2 * m + 1))
    return TestProblem(33, f"linear-rank-1-{n}", residual, (1.0,) * n, (minimum,))


def linear_rank_1_with_zeros(n: int, m: int) -> TestProblem:
    """The same, its first and last parameter and its first and last equation left out."""
    i, j = np.arange(m), np.arange(1, n + 1)
    i[-1] = j[0] = j[-1] = 0

    def residual(x: jax.Array) -> jax.Array:
        return like(x, i) * (like(x, j) @ x) - 1

    minimum = (m**2 + 3 * m - 6) / (2 * (2 * m - 3))
    return TestProblem(34, f"linear-rank-1-with-zeros-{n}", residual, (1.0,) * n, (minimum,))


def chebyquad(n: int) -> TestProblem:
    """n nodes whose plain mean integrates the first n Chebyshev polynomials over [0, 1]."""
    i = np.arange(2, n + 1, 2)
    integrals = np.zeros(n)
    integrals[1::2] = -1 / (i**2 - 1)

    def residual(x: jax.Array) -> jax.Array:
        before, now = jnp.ones_like(x), 2 * x - 1
        means = []
        for _ in range(n):
            means.append(jnp.mean(now))
            before, now = now, 2 * (2 * x - 1) * now - before
        return jnp.stack(means) - like(x, integrals)

    start = tuple(j / (n + 1) for j in range(1, n + 1))
    minima = {8: (3.516873726e-3,), 10: (4.772713696e-3, 6.503954801e-3)}
    exact = (0.0,) if n <= 7 or n == 9 else ()
    return TestProblem(35, f"chebyquad-{n}", residual, start, minima.get(n, exact))


PROBLEMS = (
    *(watson(n) for n in (6, 9, 12)),
    extended_rosenbrock(10),
    extended_powell_singular(12),
    *(penalty_1(n) for n in (4, 10)),
    *(penalty_2(n) for n in (4, 10)),
    variably_dimensioned(10),
    trigonometric(10),
    brown_almost_linear(10),
    discrete_boundary_value(10),
    discrete_integral_equation(10),
    broyden_tridiagonal(10),
    broyden_banded(10),
    linear_full_rank(5, 10),
    linear_rank_1(5, 10),
    linear_rank_1_with_zeros(5, 10),
    *(chebyquad(n) for n in (8, 9, 10)),
)
