"""Gradient descent: no curvature at all."""

from __future__ import annotations

import optax

from secondorder.curvature import identity
from secondorder.solvers import apply_inverse
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed


def gradient_descent(
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α g``: against the gradient, the direction of steepest descent.

    The identity in place of the curvature, so its rate depends on the condition number κ: the error
    falls by about ``(κ − 1)/(κ + 1)`` a step on a quadratic with the best fixed α.

    Args:
      learning_rate: α or an Optax schedule; ``None`` searches along the line (strong Wolfe), from
        the last step size on.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum((p - 1.0) ** 2)
      >>> bool(so.minimize(f, jnp.zeros(2), so.gradient_descent()).success)
      True
    """
    direction = scale_by_curvature(identity(), apply_inverse(), fixed())
    return step_along(direction, learning_rate, first_guess="keep")
