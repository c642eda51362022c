"""Poisson's equation on the unit cube of five dimensions, at points that are drawn at every step.

    −Δu = π² Σ cos(πxᵢ) within, u = Σ cos(πxᵢ) on the boundary, which is the solution

The objective is half of ``∫ (Δu + f)² + ∫ (u − u*)²`` as means over points.

Source: Dangel, Müller and Zeinhofer (2024), for the equation and the size of the network.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problem import Problem
from experiments.problems import networks

DIMENSION = 5
SIZES = (DIMENSION, 64, 64, 48, 48, 1)  # 10,065 parameters
INSIDE, ON_BOUNDARY = 480, 80  # at every step; published with 3000 and 500, on a GPU
LOOK = 10_000
SECONDS = 30.0
SEED_OF_LOOK = 1_000_001
TARGETS = (1e-1, 1e-2)


def solution(x):
    return jnp.sum(jnp.cos(jnp.pi * x))


def points(generator: np.random.Generator):
    """Uniform within, and uniform on the faces."""
    inside = generator.random((INSIDE, DIMENSION), np.float32)
    edge = generator.random((ON_BOUNDARY, DIMENSION), np.float32)
    face = generator.integers(DIMENSION, size=ON_BOUNDARY)
    edge[np.arange(ON_BOUNDARY), face] = generator.integers(2, size=ON_BOUNDARY)
    return {
        "points": np.concatenate([inside, edge]),
        "on_boundary": np.repeat([False, True], [INSIDE, ON_BOUNDARY]),
    }


def stream(data, seed):
    del data
    generator = np.random.default_rng(seed)
    while True:
        yield points(generator)


def load():
    generator = np.random.default_rng(SEED_OF_LOOK)
    return {**points(generator), "held_out_points": generator.random((LOOK, DIMENSION), np.float32)}


def u(params, x):
    return networks.outputs(params, x)[0]


def residual(params, example):
    """``Δu + f`` at a point within, ``u − u*`` at one on the boundary; by the root of its share."""
    x, on_boundary = example
    along = lambda e: lambda x: jax.jvp(functools.partial(u, params), (x,), (e,))[1]
    bends = jax.vmap(lambda e: jax.jvp(along(e), (x,), (e,))[1])(jnp.eye(DIMENSION, dtype=x.dtype))
    within = (jnp.sum(bends) + jnp.pi**2 * solution(x)) / INSIDE**0.5
    return jnp.where(on_boundary, (u(params, x) - solution(x)) / ON_BOUNDARY**0.5, within)


def objective(batch):
    examples = batch["points"], batch["on_boundary"]
    return so.per_example(so.losses.half_sum_of_squares(), residual, examples)


def metrics(params, data):
    x = data["held_out_points"]
    exact = jax.vmap(solution)(x)
    found = jax.vmap(functools.partial(u, params))(x)
    return {"error": jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)}


PROBLEM = Problem(
    name="poisson-5d",
    title="Poisson's equation in 5 dimensions",
    description=(
        f"−Δu = π² Σ cos(πxᵢ) on the unit cube by {'-'.join(map(str, SIZES))} tanh units (10,065 "
        f"parameters) in float32, {INSIDE} points within and {ON_BOUNDARY} on the boundary, drawn "
        f"anew at every step; everyone has {SECONDS:g} seconds; the error is that of u in L2, "
        f"relative, on {LOOK:,} points."
    ),
    load=load,
    stream=stream,
    init=lambda key, data: networks.init(key, SIZES),
    objective=objective,
    metrics=metrics,
    measure="loss",
    targets=TARGETS,
    float64=False,
    steps=dict.fromkeys(("first-order", "quasi-newton", "matrix-free", "dense"), 10_000),
    seconds=SECONDS,
    random_start=True,
    grad_norm_target=0.0,
    tuning_steps=100,
    looks_at=lambda data: {name: data[name] for name in ("points", "on_boundary")},
)
