"""The conjugate-gradient iteration of ``cg()``, ``steihaug()`` and the implicit derivative.

Every guard is relative, so a gradient of size 1e-12 takes as many iterations as a gradient of size
1. ``jax.scipy.sparse.linalg.cg`` is not used: it ravels leaves, does not test the sign of the
curvature, and has no report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.tree import Params

Map = Callable[[Params], Params]


class Iterate(NamedTuple):
    """A point of the iteration.

    Attributes:
      step: ``d``.
      residual: ``r = −g − B d``.
      direction: direction of the next iteration.
      rz: ``r · M⁻¹ r``.
      count: number of iterations.
    """

    step: Params
    residual: Params
    direction: Params
    rz: jax.Array
    count: jax.Array


class Ray(NamedTuple):
    """The direction ``u`` of an iteration and its curvature.

    Attributes:
      direction, image: ``u`` and ``B u``.
      bend: ``u · B u``.
      negative: whether ``u · B u`` is negative, or zero to working precision.
      length: multiple of ``u`` that minimises the model with the curvature in magnitude; one where
        the model is flat to working precision.
    """

    direction: Params
    image: Params
    bend: jax.Array
    negative: jax.Array
    length: jax.Array


def begin(grad: Params, precondition: Map, start: tuple[Params, Params] | None = None) -> Iterate:
    """The first point: zero, or ``start = (d, B d)``."""
    step, image = (tree.zeros_like(grad),) * 2 if start is None else start
    residual = tree.negative(tree.add(grad, image))
    z = precondition(residual)
    return Iterate(step, residual, z, tree.vdot(residual, z), jnp.zeros((), jnp.int32))


def advance(
    at: Iterate, product: Map, precondition: Map, reach: Callable[[Ray], jax.Array]
) -> tuple[Iterate, Ray]:
    """The next point, and the ray from the last point to it.

    Args:
      reach: ``Ray ->`` the multiple of its direction to take; without a limit ``ray.length``.
    """
    image = product(at.direction)
    bend = tree.vdot(at.direction, image)
    # Relative to the lengths of both vectors: a tiny curvature may still be safely positive.
    eps = jnp.finfo(at.rz.dtype).eps
    rounding = eps * tree.norm(at.direction) * tree.norm(image)
    flat = jnp.abs(bend) <= rounding
    length = jnp.where(flat, 1, at.rz / jnp.where(flat, 1, jnp.abs(bend)))
    ray = Ray(at.direction, image, bend, ~(bend > rounding), length)
    alpha = reach(ray)
    residual = tree.axpy(-alpha, image, at.residual)
    z = precondition(residual)
    rz = tree.vdot(residual, z)
    return Iterate(
        tree.axpy(alpha, at.direction, at.step),
        residual,
        tree.axpy(rz / jnp.where(at.rz > 0, at.rz, 1), at.direction, z),
        rz,
        at.count + 1,
    ), ray
