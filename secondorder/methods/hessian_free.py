"""Hessian-free optimization: Gauss-Newton products, truncated CG, adapted damping."""

from __future__ import annotations

from typing import Any

import optax

from secondorder import trust
from secondorder.curvature import exact
from secondorder.operators import ggn
from secondorder.solvers import cg, relative_progress
from secondorder.transform import scale_by_curvature


def hessian_free(
    damping: Any = 1.0, max_cg_steps: int = 250, warm_start: float = 0.95
) -> optax.GradientTransformationExtraArgs:
    """``(G + λ I) d = −g`` by conjugate gradients, stopped where the model stops falling.

    ``G`` is the Gauss-Newton matrix, so the system is never indefinite. CG starts from the decayed
    last step, stops by Martens' relative progress of the model, and λ follows the gain ratio; a
    step that does not decrease the objective is rejected.

    Args:
      damping: the first λ, in the units of the curvature.
      max_cg_steps: at most this many products a step.
      warm_start: the factor on the last step.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = jnp.linspace(0.0, 1.0, 20)
      >>> f = so.compose(so.squared_error(jnp.exp(-2 * x)), lambda p: jnp.exp(-p * x))
      >>> bool(so.minimize(f, jnp.array(0.0), so.hessian_free()).success)
      True

    Source: Martens (2010), section 4.
    """
    solver = cg(max_cg_steps, stop=relative_progress(), warm_start=warm_start)
    return scale_by_curvature(exact(ggn), solver, trust.damping(damping, adapt=trust.martens))
