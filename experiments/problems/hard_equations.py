"""Three equations that networks were said to fail on: convection, reaction, wave.

    convection  u_t + 40 u_x = 0       0 < x < 2π   u = sin x at t = 0, periodic in x
    reaction    u_t = 5 u (1 − u)      0 < x < 2π   u = exp(−8 (x − π)²/π²) at t = 0, periodic in x
    wave        u_tt = 4 u_xx          0 < x < 1    u = sin πx + ½ sin 5πx and u_t = 0 at t = 0,
                                                    u = 0 at both ends

for 0 < t < 1, each by 2-50-50-50-1 tanh units. The residual is written for all points at once, as
people write it: the mean squares of the equation, of the start and of the ends, added.

Source: Krishnapriyan et al. (2021), for convection and reaction as failures of networks; Rathore et
al. (2024), for the three, their settings and the errors of Adam, L-BFGS and Nyström Newton-CG in a
row: 1.94e-3, 9.92e-3 and 1.27e-2.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problem import Problem
from experiments.problems import networks, physics

SIZES = (2, 50, 50, 50, 1)
ON_EDGE = 100  # points at the start, and pairs of points at the ends
LOOK = (51, 101)  # points in time and space on which the error is measured
SPEED, GROWTH, SQUARED_SPEED, OVERTONE = 40.0, 5.0, 4.0, 5

Terms = dict[str, jax.Array]


class Equation(NamedTuple):
    """An equation in time and space.

    Attributes:
      width: the right end in space.
      solution: ``(t, x) ↦ u``.
      inside: u and a point ↦ the residual of the equation.
      periodic: whether u is the same at both ends, or zero.
      at_rest: whether ``u_t`` is zero at the start.
      within: points in time and in space; more where the solution has more periods.
    """

    name: str
    title: str
    formula: str
    width: float
    solution: Callable[[jax.Array], jax.Array]
    inside: Callable[[physics.Function, jax.Array], jax.Array]
    periodic: bool = True
    at_rest: bool = False
    within: tuple[int, int] = (30, 50)


def slope(u: physics.Function, x: jax.Array, along: int) -> jax.Array:
    return jax.jvp(u, (x,), (jnp.eye(2, dtype=x.dtype)[along],))[1]


def bend(u: physics.Function, x: jax.Array, along: int) -> jax.Array:
    return physics.derivatives(u, x, jnp.eye(2, dtype=x.dtype)[along])[1]


def bump(x):
    return jnp.exp(-8 * (x - jnp.pi) ** 2 / jnp.pi**2)


def grown(x):
    """The logistic curve in time from the bump."""
    start, factor = bump(x[1]), jnp.exp(GROWTH * x[0])
    return start * factor / (start * factor + 1 - start)


def standing(x):
    """Two standing waves."""
    of = lambda k: jnp.sin(k * jnp.pi * x[1]) * jnp.cos(2 * k * jnp.pi * x[0])
    return of(1) + 0.5 * of(OVERTONE)


CONVECTION = Equation(
    "convection",
    "Convection",
    f"u_t + {SPEED:g} u_x = 0 from sin x, periodic",
    2 * np.pi,
    lambda x: jnp.sin(x[1] - SPEED * x[0]),
    lambda u, x: slope(u, x, 0) + SPEED * slope(u, x, 1),
    within=(50, 30),
)
REACTION = Equation(
    "reaction",
    "Reaction",
    f"u_t = {GROWTH:g} u (1 − u) from a bump, periodic",
    2 * np.pi,
    grown,
    lambda u, x: slope(u, x, 0) - GROWTH * u(x) * (1 - u(x)),
)
WAVE = Equation(
    "wave",
    "Wave",
    f"u_tt = {SQUARED_SPEED:g} u_xx from sin πx + ½ sin {OVERTONE}πx at rest, zero at both ends",
    1.0,
    standing,
    lambda u, x: bend(u, x, 0) - SQUARED_SPEED * bend(u, x, 1),
    periodic=False,
    at_rest=True,
    within=(50, 30),
)


def residual(equation: Equation, batch, params) -> jax.Array:
    """All residuals, each term divided by the root of its number."""
    u = functools.partial(physics.u, params)
    of = jax.vmap(u)
    start, left, right = batch["start"], batch["left"], batch["right"]
    terms = [
        jax.vmap(lambda x: equation.inside(u, x))(batch["points"]),
        of(start) - jax.vmap(equation.solution)(start),
    ]
    terms += [of(left) - of(right)] if equation.periodic else [of(left), of(right)]
    if equation.at_rest:
        terms.append(jax.vmap(lambda x: slope(u, x, 0))(start))
    return jnp.concatenate([term / len(term) ** 0.5 for term in terms])


def objective(equation: Equation) -> Callable:
    """A batch ↦ half the sum of the mean squares."""

    def of(batch) -> so.Objective:
        loss = so.losses.half_sum_of_squares()
        return so.compose(loss, functools.partial(residual, equation, batch))

    return of


def load(equation: Equation):
    in_time, in_space = equation.within
    times, places = physics.midpoints(0, 1, in_time), physics.midpoints(0, equation.width, in_space)
    edge_times, edge_places = (physics.midpoints(0, end, ON_EDGE) for end in (1.0, equation.width))
    at = lambda first, second: np.stack(np.broadcast_arrays(first, second), axis=-1)
    look = physics.grid(np.linspace(0, 1, LOOK[0]), np.linspace(0, equation.width, LOOK[1]))
    return {
        "points": physics.grid(times, places),
        "start": at(0.0, edge_places),
        "left": at(edge_times, 0.0),
        "right": at(edge_times, equation.width),
        **physics.held_out(look, equation.solution),
    }


def glorot(key: jax.Array, sizes: Sequence[int]):
    """Glorot-normal kernels, zero biases, in float64."""
    layers = networks.init(key, sizes)
    scaled = lambda w: w.astype(float) * (2 * len(w) / sum(w.shape)) ** 0.5
    return tuple(
        {"kernel": scaled(layer["kernel"]), "bias": layer["bias"].astype(float)} for layer in layers
    )


def problem(equation: Equation, targets: tuple[float, ...]) -> Problem:
    return Problem(
        name=equation.name,
        title=f"{equation.title}, on which networks were reported to fail",
        description=(
            f"{equation.formula}; by {'-'.join(map(str, SIZES))} tanh units in float64, "
            f"{' x '.join(map(str, equation.within))} points within and {ON_EDGE} at the start and "
            "at each end, the same at every step, all terms with weight one; the error is that of "
            f"u in L2, relative, on {LOOK[0]} x {LOOK[1]} points. The first target, "
            f"{targets[0]:.2e}, is the least error of Rathore et al. (2024)."
        ),
        load=functools.cache(functools.partial(load, equation)),
        init=lambda key, data: glorot(key, SIZES),
        objective=objective(equation),
        metrics=physics.metrics,
        measure="error",
        targets=targets,
        steps={"first-order": 5_000, "quasi-newton": 2_000, "matrix-free": 250, "dense": 250},
        solved=lambda row: row["error"] <= targets[-1],
        random_start=True,
        grad_norm_target=0.0,
        tuning_steps=500,
    )


PROBLEMS = (
    problem(CONVECTION, (1.94e-3, 1e-4)),
    problem(REACTION, (9.92e-3, 1e-4, 1e-6)),
    problem(WAVE, (1.27e-2, 1e-3)),
)
