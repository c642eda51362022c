"""The heat equation on a rod by a small network, over space and time at once.

    u_t = κ u_xx for 0 < t, x < 1, κ = ¼;  u = sin(πx) at t = 0, u = 0 at x = 0 and x = 1

It is solved by ``u* = exp(−π²κt) sin(πx)``. The objective is half of ``∫ (u_t − κ u_xx)² +
∫ (u − u*)²``, within and along the three sides where u is given.

Source: Müller and Zeinhofer (2023), for the equation.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problem import Problem
from experiments.problems import physics

CONDUCTIVITY = 0.25
SIZES = (2, 32, 1)
SIDE = 24  # points along a side, in the interior and on the boundary
LOOK = 41  # points along a side of the grid on which the error is measured
TARGETS = (1e-2, 1e-4, 1e-6)


def solution(x):
    """At a point (t, x)."""
    return jnp.exp(-(jnp.pi**2) * CONDUCTIVITY * x[0]) * jnp.sin(jnp.pi * x[1])


def equation(u, x):
    """``u_t − κ u_xx``."""
    in_time, in_space = jnp.eye(2, dtype=x.dtype)
    _, rate = jax.jvp(u, (x,), (in_time,))
    _, bend = physics.derivatives(u, x, in_space)
    return rate - CONDUCTIVITY * bend


residual = physics.residual(equation, solution, within=SIDE, beside=SIDE**0.5)


@functools.cache
def load():
    middle, zero, one = physics.midpoints(0, 1, SIDE), np.zeros(SIDE), np.ones(SIDE)
    boundary = physics.edges((zero, middle), (middle, zero), (middle, one))
    look = np.linspace(0, 1, LOOK)
    return {
        **physics.data(physics.grid(middle, middle), boundary),
        **physics.held_out(physics.grid(look, look), solution),
    }


PROBLEM = Problem(
    name="heat",
    title="The heat equation in 1+1 dimensions",
    description=(
        f"u_t = {CONDUCTIVITY:g} u_xx on the unit square of time and space by "
        f"{'-'.join(map(str, SIZES))} tanh units in float64, {SIDE} x {SIDE} points within and "
        f"{3 * SIDE} where u is given, the same at every step; the error is that of u in L2, "
        f"relative, on {LOOK} x {LOOK} points."
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

#: The same in a comparison of all methods, where there are many to run.
BRIEF = dataclasses.replace(
    PROBLEM,
    steps={"first-order": 2_000, "quasi-newton": 600, "matrix-free": 100, "dense": 100},
    tuning_steps=400,
    left_out=dict.fromkeys(
        ("newton", "trust-region-newton", "cubic-newton", "hybrid-newton"),
        "a Hessian of the squared derivatives costs five hundred gradients a step",
    ),
)
