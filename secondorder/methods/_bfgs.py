"""BFGS: a quasi-Newton approximation of the inverse Hessian from gradients."""

from __future__ import annotations

import optax

from secondorder import curvature, settings
from secondorder.solvers import apply_inverse
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed


@settings.checked()
def bfgs(
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α H g``, ``H`` the BFGS inverse: one gradient a step, O(n²) arithmetic and memory.

    Superlinear near a minimum, without second derivatives. The strong-Wolfe search keeps ``H``
    positive definite.

    Args:
      learning_rate: α or a schedule; ``None`` searches along the line, with α = 1 as the
        first trial from the second step on.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(jnp.cosh(p - 1.0))
      >>> bool(so.minimize(f, jnp.zeros(3), so.bfgs()).success)
      True

    Source: Nocedal and Wright (2006), algorithm 6.1.
    """
    direction = scale_by_curvature(curvature.bfgs(), apply_inverse(), fixed())
    return step_along(direction, learning_rate, first_guess="learnt")
