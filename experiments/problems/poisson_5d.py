"""Poisson's equation on the unit cube of five dimensions, at points that are drawn at every step.

    −Δu = π² Σ cos(πxᵢ) within, u = Σ cos(πxᵢ) on the boundary, which is the solution

The objective is half of ``∫ (Δu + f)² + ∫ (u − u*)²`` as means over points.

Source: Dangel, Müller and Zeinhofer (2024), for the equation and the size of the network.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problem import Problem
from experiments.problems import networks, physics

DIMENSION = 5
SIZES = (DIMENSION, 64, 64, 48, 48, 1)  # 10,065 parameters
INSIDE, ON_BOUNDARY = 480, 80  # at every step; published with 3000 and 500, on a GPU
LOOK = 10_000
SECONDS = 30.0
SEED_OF_LOOK = 1_000_001
TARGETS = (1e-1, 1e-2)


def solution(x):
    return jnp.sum(jnp.cos(jnp.pi * x))


def equation(u, x):
    """``Δu + f``."""
    bend = lambda e: physics.derivatives(u, x, e)[1]
    bends = jax.vmap(bend)(jnp.eye(DIMENSION, dtype=x.dtype))
    return jnp.sum(bends) + jnp.pi**2 * solution(x)


residual = physics.residual(equation, solution, within=INSIDE**0.5, beside=ON_BOUNDARY**0.5)


def points(
    generator: np.random.Generator, within: int = INSIDE, on_boundary: int = ON_BOUNDARY
) -> physics.Data:
    """Uniform within, and uniform on the faces."""
    inside = generator.random((within, DIMENSION), np.float32)
    edge = generator.random((on_boundary, DIMENSION), np.float32)
    face = generator.integers(DIMENSION, size=on_boundary)
    edge[np.arange(on_boundary), face] = generator.integers(2, size=on_boundary)
    return physics.data(inside, edge)


def stream(data, seed):
    del data
    generator = np.random.default_rng(seed)
    while True:
        yield points(generator)


@functools.cache
def load():
    generator = np.random.default_rng(SEED_OF_LOOK)
    seen = points(generator)
    look = generator.random((LOOK, DIMENSION), np.float32)
    return {**seen, **physics.held_out(look, solution)}


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
    objective=physics.objective(residual),
    metrics=physics.metrics,
    measure="error",
    targets=TARGETS,
    float64=False,
    steps=dict.fromkeys(("first-order", "quasi-newton", "matrix-free", "dense"), 10_000),
    seconds=SECONDS,
    random_start=True,
    grad_norm_target=0.0,
    tuning_steps=100,
    looks_at=lambda data: {name: data[name] for name in ("points", "on_boundary")},
)
