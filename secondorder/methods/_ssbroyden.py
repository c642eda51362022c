"""Self-scaled Broyden: a scaled member of Broyden's family, chosen anew for each pair."""

from __future__ import annotations

import optax

from secondorder import curvature, settings
from secondorder.solvers import apply_inverse
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed


@settings.checked()
def ssbroyden(
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α H g``, ``H`` by the self-scaled update of Broyden's family.

    ``H⁺ = (H − Hyyᵀ H/yᵀHy + φ yᵀHy vvᵀ)/τ + ssᵀ/sᵀy`` with ``v = s/sᵀy − Hy/yᵀHy``; φ and τ
    follow from each pair of a step ``s`` and its change ``y`` of the gradient
    (:func:`secondorder.curvature.ssbroyden`), and ``φ = τ = 1`` is BFGS. The strong-Wolfe search
    keeps ``H`` positive definite. For ill-conditioned problems, such as physics-informed networks
    in float64; on others :func:`secondorder.bfgs` takes fewer values.

    Args:
      learning_rate: α or a schedule; ``None`` searches along the line, with α = 1 as the
        first trial from the second step on.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(jnp.cosh(p - 1.0))
      >>> bool(so.minimize(f, jnp.zeros(3), so.ssbroyden()).success)
      True

    Source: Al-Baali, Spedicato and Maggioni (2014); Urbán, Stefanou and Pons (2025), section 2.
    """
    direction = scale_by_curvature(curvature.ssbroyden(), apply_inverse(), fixed())
    return step_along(direction, learning_rate, first_guess="learnt")
