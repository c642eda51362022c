"""Poisson's equation on the unit square by a small network: a fit where accuracy is the point.

    −Δu = 2π² sin(πx) sin(πy) within, u = 0 on the boundary; solved by u* = sin(πx) sin(πy)

The objective is half of ``∫ (Δu + f)² + ∫ u²``, inside and along the boundary.

Source: Müller and Zeinhofer (2023), for the equation, the network, its start and the integrals.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problem import Problem
from experiments.problems import networks

SIZES = (2, 32, 1)
SIDE = 30  # points along a side, in the interior and on the boundary
PERIMETER = 4.0
LOOK = 51  # points along a side of the grid on which the error is measured
TARGETS = (1e-3, 1e-6)


def solution(x):
    return jnp.prod(jnp.sin(jnp.pi * x))


def load():
    """Points, and whether each lies on the boundary."""
    inside = np.linspace(0, 1, SIDE + 2)[1:-1]
    along = np.arange(SIDE) / SIDE
    zero, one = np.zeros(SIDE), np.ones(SIDE)
    sides = (along, zero), (one, along), (1 - along, one), (zero, 1 - along)
    boundary = np.concatenate([np.stack(side, axis=-1) for side in sides])
    grid = lambda t: np.stack(np.meshgrid(t, t), axis=-1).reshape(-1, 2)
    interior = grid(inside)
    return {
        "points": np.concatenate([interior, boundary]),
        "on_boundary": np.repeat([False, True], [len(interior), len(boundary)]),
        "held_out_points": grid(np.linspace(0, 1, LOOK)),
    }


def init(key, data):
    """All parameters normal, of standard deviation 0.1, biases among them."""
    shapes = networks.init(key, SIZES)
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(key, len(leaves))
    draw = lambda key, leaf: 0.1 * jax.random.normal(key, leaf.shape, float)
    return jax.tree.unflatten(structure, list(map(draw, keys, leaves)))


def u(params, x):
    return networks.outputs(params, x)[0]


def residual(params, example):
    """``Δu + f`` at a point within, ``u`` at one on the boundary; each by the root of its share."""
    x, on_boundary = example
    slope = lambda x: jax.grad(u, argnums=1)(params, x)
    bend = sum(jax.jvp(slope, (x,), (e,))[1] @ e for e in jnp.eye(2, dtype=x.dtype))
    within = (bend + 2 * jnp.pi**2 * solution(x)) / SIDE
    return jnp.where(on_boundary, (PERIMETER / (4 * SIDE)) ** 0.5 * u(params, x), within)


def objective(batch):
    examples = batch["points"], batch["on_boundary"]
    return so.per_example(so.losses.half_sum_of_squares(), residual, examples)


def metrics(params, data):
    x = data["held_out_points"]
    exact = jax.vmap(solution)(x)
    found = jax.vmap(functools.partial(u, params))(x)
    return {"error": jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)}


PROBLEM = Problem(
    name="poisson-2d",
    title="Poisson's equation in 2 dimensions",
    description=(
        f"−Δu = f on the unit square by {'-'.join(map(str, SIZES))} tanh units in float64, "
        f"{SIDE} x {SIDE} points within and {4 * SIDE} on the boundary, the same at every step; "
        f"the error is that of u in L2, relative, on {LOOK} x {LOOK} points."
    ),
    load=load,
    init=init,
    objective=objective,
    metrics=metrics,
    measure="loss",
    targets=TARGETS,
    steps={"first-order": 13_000, "quasi-newton": 3_000, "matrix-free": 200, "dense": 200},
    solved=lambda row: row["error"] <= TARGETS[-1],
    random_start=True,
    grad_norm_target=0.0,
    tuning_steps=1_000,
)
