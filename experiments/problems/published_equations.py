"""Poisson's and the heat equation in the published settings, by absolute errors.

    poisson-2d-published   −Δu = 2π² sin(πx) sin(πy), u = 0 on the boundary; 2-64-1
    heat-published         u_t = ¼ u_xx, u = sin(πx) at t = 0, u = 0 at both ends; 2-64-1
    poisson-5d-shallow     −Δu = π² Σ cos(πxᵢ), u = Σ cos(πxᵢ) on the boundary; 5-64-1

The objective is half the mean square of the equation within and half that of u less its values on
the boundary; the error is the root of the mean square of u less the solution. The start is uniform,
by the number of inputs of a layer.

Source: Dangel, Müller and Zeinhofer (2024), for the settings and the steps of others: equations,
networks, numbers of points, and points that are drawn anew in five dimensions.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problem import Problem
from experiments.problems import heat, physics, poisson, poisson_5d

INSIDE, ON_BOUNDARY = 900, 120
DRAWN_INSIDE, DRAWN_ON_BOUNDARY = 3000, 500
TARGETS = (1e-3, 1e-4, 1e-6)
STEPS = {"first-order": 10_000, "quasi-newton": 1_500, "matrix-free": 300, "dense": 300}


def uniform(key: jax.Array, sizes: Sequence[int]):
    """Kernels and biases uniform up to ±1/√inputs, in float64."""
    layers = []
    for k, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        of_kernel, of_bias = jax.random.split(jax.random.fold_in(key, k))
        draw = functools.partial(
            jax.random.uniform, dtype=float, minval=-(fan_in**-0.5), maxval=fan_in**-0.5
        )
        layers.append(
            {"kernel": draw(of_kernel, (fan_in, fan_out)), "bias": draw(of_bias, (fan_out,))}
        )
    return tuple(layers)


def error(params, data) -> dict[str, jax.Array]:
    """The root of the mean square of u less the solution, on the points held out."""
    found = jax.vmap(functools.partial(physics.u, params))(data["held_out_points"])
    return {"error": jnp.sqrt(jnp.mean((found - data["held_out_values"]) ** 2))}


@functools.cache
def sides_of_time() -> Mapping[str, np.ndarray]:
    """Points of the heat equation: within, at the start and at both ends."""
    middle, third = physics.midpoints(0, 1, 30), physics.midpoints(0, 1, ON_BOUNDARY // 3)
    zero, one = np.zeros(len(third)), np.ones(len(third))
    boundary = physics.edges((zero, third), (third, zero), (third, one))
    look = np.linspace(0, 1, heat.LOOK)
    return {
        **physics.data(physics.grid(middle, middle), boundary),
        **physics.held_out(physics.grid(look, look), heat.solution),
    }


def drawn(generator: np.random.Generator) -> Mapping[str, np.ndarray]:
    """Points of the cube, in float64."""
    points = poisson_5d.points(generator, DRAWN_INSIDE, DRAWN_ON_BOUNDARY)
    return {**points, "points": points["points"].astype(float)}


def stream(data, seed):
    """Points drawn anew at every step."""
    del data
    generator = np.random.default_rng(seed)
    while True:
        yield drawn(generator)


@functools.cache
def cube() -> Mapping[str, np.ndarray]:
    generator = np.random.default_rng(poisson_5d.SEED_OF_LOOK)
    look = generator.random((poisson_5d.LOOK, poisson_5d.DIMENSION))
    return {**drawn(generator), **physics.held_out(look, poisson_5d.solution)}


def problem(
    name: str,
    words: str,
    sizes: Sequence[int],
    residual: Callable,
    load: Callable,
    **settings,
) -> Problem:
    shape = "-".join(map(str, sizes))
    return Problem(
        name=name,
        description=f"{words}, by {shape} tanh units in float64; the error is that of u, absolute.",
        load=load,
        init=lambda key, data: uniform(key, sizes),
        objective=physics.objective(residual),
        metrics=error,
        measure="error",
        targets=TARGETS,
        solved=lambda row: row["error"] <= TARGETS[-1],
        random_start=True,
        grad_norm_target=0.0,
        tuning_steps=500,
        **{"steps": STEPS, **settings},
    )


POINTS = {"within": INSIDE**0.5, "beside": ON_BOUNDARY**0.5}
PROBLEMS = (
    problem(
        "poisson-2d-published",
        f"−Δu = 2π² sin(πx) sin(πy) on the unit square, {INSIDE} points within and {ON_BOUNDARY} "
        "on the boundary",
        (2, 64, 1),
        physics.residual(poisson.equation, lambda x: jnp.zeros_like(x[0]), **POINTS),
        poisson.load,
        title="Poisson's equation in 2 dimensions, as published",
    ),
    problem(
        "heat-published",
        f"u_t = u_xx / 4 on the unit square of time and space, {INSIDE} points within and "
        f"{ON_BOUNDARY} where u is given",
        (2, 64, 1),
        physics.residual(heat.equation, heat.solution, **POINTS),
        sides_of_time,
        title="The heat equation in 1+1 dimensions, as published",
    ),
    problem(
        "poisson-5d-shallow",
        f"−Δu = π² Σ cos(πxᵢ) on the unit cube, {DRAWN_INSIDE:,} points within and "
        f"{DRAWN_ON_BOUNDARY} on the boundary, drawn anew at every step",
        (5, 64, 1),
        physics.residual(
            poisson_5d.equation,
            poisson_5d.solution,
            within=DRAWN_INSIDE**0.5,
            beside=DRAWN_ON_BOUNDARY**0.5,
        ),
        cube,
        title="Poisson's equation in 5 dimensions, as published",
        stream=stream,
        looks_at=lambda data: {name: data[name] for name in ("points", "on_boundary")},
        steps={"first-order": 2_000, "quasi-newton": 500, "matrix-free": 200, "dense": 200},
    ),
)
