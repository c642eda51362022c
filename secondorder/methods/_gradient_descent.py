"""Gradient descent: the identity in place of the curvature."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import identity
from secondorder.solvers import apply_inverse
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed


@settings.checked()
def gradient_descent(
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α g``, a step along the negative gradient.

    The rate depends on the condition number κ: on a quadratic with the best fixed α the error falls
    by about ``(κ − 1)/(κ + 1)`` a step.

    Args:
      learning_rate: α or an Optax schedule; ``None`` searches along the line (strong Wolfe), with
        the last step size as the first trial.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum((p - 1.0) ** 2)
      >>> bool(so.minimize(f, jnp.zeros(2), so.gradient_descent()).success)
      True
    """
    direction = scale_by_curvature(identity(), apply_inverse(), fixed())
    return step_along(direction, learning_rate, first_guess="keep")
