"""Gauss-Newton: the linearised model under the exact loss."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import exact
from secondorder.operators import ggn
from secondorder.solvers import svd
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed


@settings.checked()
def gauss_newton(
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = α argmin ½‖J d + r‖²``, by singular values; for other losses ``−α G⁺ g``.

    Needs first derivatives only, and its curvature ``Jᵀ M J`` is never indefinite. Converges
    quadratically where the residuals vanish at the solution, else linearly. Needs an objective by
    ``compose``, ``per_example`` or ``sum_of_squares``.

    Args:
      learning_rate: α or a schedule; ``None`` searches along the line (strong Wolfe), with α = 1 as
        the first trial.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> r = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> bool(so.least_squares(r, jnp.array([-1.2, 1.0]), so.gauss_newton()).success)
      True

    Source: Nocedal and Wright (2006), section 10.3; Schraudolph (2002) for general losses.
    """
    return step_along(scale_by_curvature(exact(ggn), svd(), fixed()), learning_rate)
