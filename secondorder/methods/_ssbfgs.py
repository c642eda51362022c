"""Self-scaled BFGS: a quasi-Newton inverse that is rescaled where it is too small."""

from __future__ import annotations

import optax

from secondorder import curvature, settings
from secondorder.solvers import apply_inverse
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed


@settings.checked()
def ssbfgs(
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α H g``, ``H`` by the self-scaled BFGS update: that of BFGS, from ``H/τ``.

    ``τ = min(1, sᵀy / sᵀBs)``: where ``H`` was too small along the step ``s``, by its change ``y``
    of the gradient, it is enlarged in all directions. The strong-Wolfe search keeps ``H`` positive
    definite. For ill-conditioned problems, such as physics-informed networks in float64; on others
    :func:`secondorder.bfgs` takes fewer values.

    Args:
      learning_rate: α or a schedule; ``None`` searches along the line, with α = 1 as the
        first trial from the second step on.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(jnp.cosh(p - 1.0))
      >>> bool(so.minimize(f, jnp.zeros(3), so.ssbfgs()).success)
      True

    Source: Al-Baali (1998); Urbán, Stefanou and Pons (2025), section 2.
    """
    direction = scale_by_curvature(curvature.ssbfgs(), apply_inverse(), fixed())
    return step_along(direction, learning_rate, first_guess="learnt")
