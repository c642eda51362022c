"""Newton's method: the exact Hessian, solved directly."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import exact
from secondorder.operators import hessian
from secondorder.solvers import Solver, direct
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed


@settings.checked()
def newton(
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    damping: optax.ScalarOrSchedule = 0.0,
    solver: Solver | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α (∇²f + (λ + τ) I)⁻¹ g``, the minimum of the local quadratic model for α = 1.

    Converges quadratically near a minimum, whatever the conditioning. A step costs n
    Hessian-vector products and a factorisation, O(n³), so it is for problems whose n × n matrix
    fits in memory; :func:`newton_cg` is for the others. Where the Hessian is not safely positive
    definite, a shift τ makes it so and gives a descent direction.

    Args:
      learning_rate: α or a schedule; ``None`` searches along the line (strong Wolfe), with α = 1 as
        the first trial, which makes the method globally convergent.
      damping: λ ≥ 0, fixed, or a schedule; in the units of the curvature.
      solver: ``direct()`` (default) or ``eigen()``, which uses the magnitudes of eigenvalues.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = lambda p: jnp.sum(jnp.exp(p) - p)
      >>> so.minimize(f, jnp.ones(2), so.newton()).steps.item() < 8
      True

    Source: Nocedal and Wright (2006), sections 3.3-3.4.
    """
    solver = direct() if solver is None else solver
    return step_along(scale_by_curvature(exact(hessian), solver, fixed(damping)), learning_rate)
