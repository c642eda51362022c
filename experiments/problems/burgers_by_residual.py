"""Burgers' equation by a network that has the start and equal ends by construction, and its points.

    u = −sin πx + t N(t, cos πx, sin πx),   N of three layers of 20 tanh units, in float64

All that is left is the residual of the equation within. Points are drawn uniformly, or with a
density of one plus the size of the residual over its mean, among several times as many candidates.

Source: Urbán, Stefanou and Pons (2025), for the network; Wu et al. (2023), for the density.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

import secondorder as so
from experiments.problems import burgers, hard_equations, networks, physics

SIZES = (3, 20, 20, 20, 1)
EVERY = 25  # steps between two draws
CANDIDATES = 5  # for each point
LOOK = (101, 401)  # points in time and space on which the error is measured


def u(params, x):
    """At a point (t, x)."""
    features = jnp.stack([x[0], jnp.cos(jnp.pi * x[1]), jnp.sin(jnp.pi * x[1])])
    return -jnp.sin(jnp.pi * x[1]) + x[0] * networks.outputs(params, features)[0]


def residual(params, x):
    return burgers.equation(functools.partial(u, params), x)


def objective(points: jax.Array) -> so.Objective:
    """Half the mean square of the residual."""
    one = lambda params, x: residual(params, x) / len(points) ** 0.5
    return so.per_example(so.losses.half_sum_of_squares(), one, points)


def init(seed: int):
    return hard_equations.glorot(jax.random.key(seed), SIZES)


def uniform(generator: np.random.Generator, count: int) -> np.ndarray:
    """Points of 0 < t < 1, −1 < x < 1."""
    return np.stack([generator.random(count), generator.uniform(-1, 1, count)], axis=1)


@jax.jit
def sizes_of(params, points):
    return jnp.abs(jax.vmap(functools.partial(residual, params))(points))


def by_residual(generator: np.random.Generator, count: int, params) -> np.ndarray:
    """More points where the residual is large."""
    candidates = uniform(generator, CANDIDATES * count)
    sizes = np.asarray(sizes_of(params, candidates))
    density = 1 + sizes / max(sizes.mean(), np.finfo(float).tiny)
    chosen = generator.choice(len(candidates), count, replace=False, p=density / density.sum())
    return candidates[chosen]


def anew(generator: np.random.Generator, count: int, params) -> np.ndarray:
    """Uniform points, whatever the residual is."""
    del params
    return uniform(generator, count)


@functools.cache
def look() -> tuple[np.ndarray, np.ndarray]:
    """Points, and the solution there by Cole and Hopf's transform."""
    points = physics.grid(np.linspace(0, 1, LOOK[0]), np.linspace(-1, 1, LOOK[1]))
    with jax.enable_x64(True):
        return points, np.asarray(jax.jit(jax.vmap(burgers.solution))(points))


def error(params) -> float:
    """Of u in L2, relative."""
    points, exact = look()
    found = np.asarray(values(params, points))
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@jax.jit
def values(params, points):
    return jax.vmap(functools.partial(u, params))(points)


@functools.cache
def stepped(method: optax.GradientTransformationExtraArgs):
    """``(params, state, points, steps)`` ↦ both after so many steps, and the values on the way."""

    @functools.partial(jax.jit, static_argnums=3)
    def run(params, state, points, steps):
        f = objective(points)

        def step(carry, _):
            params, state = carry
            value, grad = jax.value_and_grad(f)(params)
            given = {"value": value, "grad": grad, "value_fn": f}
            updates, state = method.update(grad, state, params, **given)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, state), length=steps)

    return run


def train(
    method: optax.GradientTransformationExtraArgs,
    count: int,
    seed: int,
    steps: int,
    renewed: Callable | None = None,
) -> Iterator[tuple[int, float, float]]:
    """Steps, value and error after each :data:`EVERY` steps; points are renewed between them."""
    with jax.enable_x64(True):
        generator, params = np.random.default_rng(seed), init(seed)
        state, points, done = method.init(params), jnp.asarray(uniform(generator, count)), 0
        while done < steps:
            if done and renewed is not None:
                points = jnp.asarray(renewed(generator, count, params))
            some = min(EVERY, steps - done)
            (params, state), found = stepped(method)(params, state, points, some)
            done += some
            yield done, float(found[-1]), error(params)
