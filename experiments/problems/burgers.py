"""Burgers' equation by a network: a wave that steepens to a front too thin for a coarse grid.

    u_t + u u_x = ν u_xx for 0 < t < 1, −1 < x < 1, ν = 0.01/π;  u = −sin(πx) at t = 0, u = 0 at ±1

Cole and Hopf's transform makes it the heat equation, whose solution is an expectation:
``u* = −E[sin(πY)]`` over ``Y = x − 2√(νt) z`` with weights ``exp(−z² − cos(πY) / (2πν))``. It is
summed by Gauss and Hermite's rule. Points are denser in x towards the front.

Source: Basdevant et al. (1986), for the equation and its solution; Raissi, Perdikaris and
Karniadakis (2019), for the task.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.problem import Problem
from experiments.problems import networks, physics

VISCOSITY = 0.01 / np.pi
SIZES = (2, 16, 16, 16, 1)
IN_TIME, IN_SPACE = 24, 60  # points
STRETCH = 4.0  # how much denser they are at the front: sinh(4) / 4, seven times
NODES = 100  # of Gauss and Hermite's rule
LOOK = (41, 101)  # points in time and space on which the error is measured
TARGETS = (1e-2, 1e-3, 1e-4)


@functools.cache
def rule():
    """Nodes and the logarithms of the weights for ``∫ exp(−z²) … dz``."""
    nodes, weights = np.polynomial.hermite.hermgauss(NODES)
    return nodes, np.log(weights)


def solution(x):
    """At a point (t, x) with t > 0, or at t = 0 where no derivative is asked for."""
    nodes, logarithms = rule()
    y = x[1] - 2 * jnp.sqrt(VISCOSITY * x[0]) * nodes
    weights = jax.nn.softmax(logarithms - jnp.cos(jnp.pi * y) / (2 * np.pi * VISCOSITY))
    return -jnp.sum(weights * jnp.sin(jnp.pi * y))


def equation(u, x):
    """``u_t + u u_x − ν u_xx``."""
    in_time, in_space = jnp.eye(2, dtype=x.dtype)
    value, rate = jax.jvp(u, (x,), (in_time,))
    slope, bend = physics.derivatives(u, x, in_space)
    return rate + value * slope - VISCOSITY * bend


def given(x):
    """What u is at the start and at both ends."""
    return jnp.where(x[0] == 0, -jnp.sin(jnp.pi * x[1]), 0.0)


ON_BOUNDARY = IN_SPACE + 2 * IN_TIME
residual = physics.residual(
    equation, given, within=(IN_TIME * IN_SPACE) ** 0.5, beside=ON_BOUNDARY**0.5
)


@functools.cache
def load():
    times = physics.midpoints(0, 1, IN_TIME)
    places = np.sinh(STRETCH * physics.midpoints(-1, 1, IN_SPACE)) / np.sinh(STRETCH)
    ends = [(times, np.full(IN_TIME, end)) for end in (-1.0, 1.0)]
    boundary = physics.edges((np.zeros(IN_SPACE), places), *ends)
    look = physics.grid(np.linspace(0, 1, LOOK[0]), np.linspace(-1, 1, LOOK[1]))
    return {
        **physics.data(physics.grid(times, places), boundary),
        **physics.held_out(look, solution),
    }


PROBLEM = Problem(
    name="burgers",
    title="Burgers' equation in 1+1 dimensions",
    description=(
        f"u_t + u u_x = 0.01/π u_xx from −sin(πx) by {'-'.join(map(str, SIZES))} tanh units in "
        f"float64, {IN_TIME} x {IN_SPACE} points within and {ON_BOUNDARY} where u is given, the "
        f"same at every step; the error is that of u in L2, relative, on {LOOK[0]} x {LOOK[1]} "
        "points. By t = 0.4 there is a front at x = 0, some hundredth wide."
    ),
    load=load,
    init=lambda key, data: jax.tree.map(lambda x: x.astype(float), networks.init(key, SIZES)),
    objective=physics.objective(residual),
    metrics=physics.metrics,
    measure="error",
    targets=TARGETS,
    steps={"first-order": 10_000, "quasi-newton": 3_000, "matrix-free": 200, "dense": 200},
    solved=lambda row: row["error"] <= TARGETS[-1],
    random_start=True,
    grad_norm_target=0.0,
    tuning_steps=500,
)
