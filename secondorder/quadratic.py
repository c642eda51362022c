"""The local model of an objective around the current parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax

from secondorder import tree
from secondorder.operators._base import Operator
from secondorder.tree import Params


class Quadratic(NamedTuple):
    """``m(d) = g·d + ½ d·Bd``, the predicted change of the objective; call it with a step.

    ``held`` is a mask of the parameters on a bound, ``None`` without bounds; ``own`` whether
    gradient and curvature are of one objective, so that residuals explain the gradient.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: 0.5 * jnp.sum(p**2)
      >>> p = jnp.array([3.0, 4.0])
      >>> float(so.Quadratic(grad=p, curvature=so.hessian(f, p))(-p))
      -12.5
    """

    grad: Params
    curvature: Operator
    held: Params | None = None
    own: bool = True

    def __call__(self, step: Params) -> jax.Array:
        # One sum over all parameters instead of two: on a CPU a sum takes as long as a product
        # with a diagonal.
        grad = tree.accumulator(self.grad)
        return tree.vdot(tree.axpy(0.5, self.curvature.mv(step), grad), step)
