"""What equations that a network solves share: the network, the objective, the error.

An equation is its points, its solution, and a function of any u and a point within: what is left of
the equation there, which is zero for the solution. A network is trained on half the sum of squares
of that within, and of u less its known values on the boundary, each by the root of its share.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import secondorder as so
from experiments.problem import Data
from experiments.problems import networks

Function = Callable[[jax.Array], jax.Array]  # u: a point ↦ a number
Equation = Callable[[Function, jax.Array], jax.Array]  # u and a point within ↦ what is left


def u(params, x):
    """The network at one point."""
    return networks.outputs(params, x)[0]


def derivatives(u: Function, x: jax.Array, e: jax.Array):
    """The first and the second derivative of u along e."""
    slope = lambda x: jax.jvp(u, (x,), (e,))[1]
    return jax.jvp(slope, (x,), (e,))


def residual(equation: Equation, values: Function, *, within: float, beside: float):
    """``(params, example)`` ↦ its residual; an example is a point, and whether on the boundary.

    Args:
      values: what u is to be on the boundary.
      within, beside: the root of how many points share one unit of weight, within and on the
        boundary.
    """

    def of(params, example):
        x, on_boundary = example
        network = functools.partial(u, params)
        inside = equation(network, x) / within
        return jnp.where(on_boundary, (network(x) - values(x)) / beside, inside)

    return of


def objective(residual: Callable):
    """A batch ↦ half the sum of squares of its residuals."""

    def of(batch):
        examples = batch["points"], batch["on_boundary"]
        return so.per_example(so.losses.half_sum_of_squares(), residual, examples)

    return of


def metrics(params, data):
    """The error of u in L2, relative, on the points held out."""
    exact = data["held_out_values"]
    found = jax.vmap(functools.partial(u, params))(data["held_out_points"])
    return {"error": jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)}


def small_normal(key, sizes: Sequence[int]):
    """All parameters normal, of standard deviation 0.1, biases among them."""
    leaves, structure = jax.tree.flatten(networks.init(key, sizes))
    keys = jax.random.split(key, len(leaves))
    draw = lambda key, leaf: 0.1 * jax.random.normal(key, leaf.shape, float)
    return jax.tree.unflatten(structure, list(map(draw, keys, leaves)))


def data(interior: np.ndarray, boundary: np.ndarray) -> Mapping[str, np.ndarray]:
    """Points, and whether each lies on the boundary."""
    return {
        "points": np.concatenate([interior, boundary]),
        "on_boundary": np.repeat([False, True], [len(interior), len(boundary)]),
    }


def edges(*sides: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The points of all sides, each given by its two coordinates, (n, 2)."""
    return np.concatenate([np.stack(side, axis=-1) for side in sides])


def held_out(points: np.ndarray, solution: Function) -> Data:
    """Where the error is measured, and the solution there, in the precision of the points."""
    with jax.enable_x64(True):
        values = np.asarray(jax.jit(jax.vmap(solution))(points))
    return {"held_out_points": points, "held_out_values": values}


def grid(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All pairs of them, (n, 2)."""
    return np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)


def midpoints(low: float, high: float, count: int) -> np.ndarray:
    """Of so many equal parts."""
    return low + (high - low) * (np.arange(count) + 0.5) / count
