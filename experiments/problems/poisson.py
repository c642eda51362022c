"""Poisson's equation on the unit square by a small network: a fit where accuracy is the point.

    −Δu = 2π² sin(πx) sin(πy) within, u = 0 on the boundary; solved by u* = sin(πx) sin(πy)

The objective is half of ``∫ (Δu + f)² + ∫ u²``, inside and along the boundary.

Source: Müller and Zeinhofer (2023), for the equation, the network, its start and the integrals.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problem import Problem
from experiments.problems import physics

SIZES = (2, 32, 1)
SIDE = 30  # points along a side, in the interior and on the boundary
PERIMETER = 4.0
LOOK = 51  # points along a side of the grid on which the error is measured
TARGETS = (1e-3, 1e-6)


def solution(x):
    return jnp.prod(jnp.sin(jnp.pi * x))


def equation(u, x):
    """``Δu + f``."""
    bend = sum(jax.jvp(jax.grad(u), (x,), (e,))[1] @ e for e in jnp.eye(2, dtype=x.dtype))
    return bend + 2 * jnp.pi**2 * solution(x)


residual = physics.residual(
    equation, lambda x: jnp.zeros_like(x[0]), within=SIDE, beside=(4 * SIDE / PERIMETER) ** 0.5
)


@functools.cache
def load():
    inside = np.linspace(0, 1, SIDE + 2)[1:-1]
    along = np.arange(SIDE) / SIDE
    zero, one = np.zeros(SIDE), np.ones(SIDE)
    boundary = physics.edges((along, zero), (one, along), (1 - along, one), (zero, 1 - along))
    look = np.linspace(0, 1, LOOK)
    return {
        **physics.data(physics.grid(inside, inside), boundary),
        **physics.held_out(physics.grid(look, look), solution),
    }


PROBLEM = Problem(
    name="poisson-2d",
    title="Poisson's equation in 2 dimensions",
    description=(
        f"−Δu = f on the unit square by {'-'.join(map(str, SIZES))} tanh units in float64, "
        f"{SIDE} x {SIDE} points within and {4 * SIDE} on the boundary, the same at every step; "
        f"the error is that of u in L2, relative, on {LOOK} x {LOOK} points."
    ),
    load=load,
    init=lambda key, data: physics.small_normal(key, SIZES),
    objective=physics.objective(residual),
    metrics=physics.metrics,
    measure="error",
    targets=TARGETS,
    steps={"first-order": 13_000, "quasi-newton": 3_000, "matrix-free": 200, "dense": 200},
    solved=lambda row: row["error"] <= TARGETS[-1],
    random_start=True,
    grad_norm_target=0.0,
    tuning_steps=1_000,
)
