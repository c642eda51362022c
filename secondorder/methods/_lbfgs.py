"""L-BFGS: matrix-free BFGS from the last few pairs of steps and gradient changes."""

from __future__ import annotations

import optax

from secondorder import curvature, settings
from secondorder.solvers import apply_inverse
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed


@settings.checked()
def lbfgs(
    learning_rate: optax.ScalarOrSchedule | None = None, *, memory: int = 10
) -> optax.GradientTransformationExtraArgs:
    """``d = −α H g``, ``H`` from the last ``memory`` pairs: O(memory · n) arithmetic and memory.

    Args:
      learning_rate: α or a schedule; ``None`` searches along the line, with α = 1 as the
        first trial from the second step on.
      memory: number of pairs.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(jnp.cosh(p - 1.0))
      >>> bool(so.minimize(f, jnp.zeros(1000), so.lbfgs()).success)
      True

    Source: Liu and Nocedal (1989); Nocedal and Wright (2006), algorithm 7.5.
    """
    direction = scale_by_curvature(curvature.lbfgs(memory), apply_inverse(), fixed())
    return step_along(direction, learning_rate, first_guess="learnt")
