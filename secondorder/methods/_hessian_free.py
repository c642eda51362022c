"""Hessian-free optimization: Gauss-Newton products, truncated CG, adapted damping."""

from __future__ import annotations

import functools

import optax

from secondorder import settings
from secondorder.curvature import Curvature, exact, preconditioned
from secondorder.operators import ggn
from secondorder.solvers import cg, known_inverse, relative_progress
from secondorder.solvers._preconditioners import Preconditioner
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, damping
from secondorder.trust._policy_of import policy_of


@settings.checked(preconditioner=settings.CURVATURE_TOO)
def hessian_free(
    *,
    trust: Trust | Real = 0.1,
    max_cg_steps: int = 250,
    warm_start: float = 0.95,
    preconditioner: Curvature | Preconditioner | None = None,
    tolerance: float = 5e-4,
    backtrack: int = 10,
) -> optax.GradientTransformationExtraArgs:
    """``(G + λ I) d = −g`` by conjugate gradients, stopped where the model stops falling.

    ``G`` is the Gauss-Newton matrix, so the system is never indefinite. CG starts from the decayed
    last solution and stops by Martens' relative progress of the model. The search goes back along
    CG's iterates, then halves the step, each as long as the objective falls; λ follows the gain
    ratio, and rises with each halving. A step that does not decrease the objective is rejected.
    With :func:`secondorder.with_curvature` the products use a part of the batch.

    Args:
      trust: a policy that gives a damping, or the λ that ``trust.damping(λ, halvings=10)`` starts
        from, in the units of the curvature. ``trust.damping(λ)`` takes a step whole or not at all.
      max_cg_steps: largest number of products a step.
      warm_start: factor of the last solution, the start of CG.
      preconditioner: ``curvature.layerwise(example)``, K-FAC's inverse: the weaker λ, the more
        products it saves, and CG may stop sooner (``tolerance=2e-3``);
        ``curvature.empirical_diagonal()``, Martens' diagonal; any other curvature with a damped
        inverse; or ``solvers.nystrom(rank, refresh_every=…)``.
      tolerance: CG stops where its last k iterations gained less than ``k · tolerance`` of the
        total gain, ``k = max(10, iterations/10)``.
      backtrack: number of CG's iterates to keep, each as large as the parameters; 0 for none.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.
      ValueError: a trust policy that gives no damping.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = jnp.linspace(0.0, 1.0, 20)
      >>> f = so.compose(so.squared_error(jnp.exp(-2 * x)), lambda p: jnp.exp(-p * x))
      >>> bool(so.minimize(f, jnp.array(0.0), so.hessian_free()).success)
      True

    Source: Martens (2010), section 4; Martens and Sutskever (2012).
    """
    if isinstance(preconditioner, Curvature):
        curvature, inverse = preconditioned(exact(ggn), preconditioner), known_inverse()
    else:
        curvature, inverse = exact(ggn), preconditioner
    solver = cg(max_cg_steps, relative_progress(tolerance), inverse, warm_start, backtrack)
    own = functools.partial(damping, halvings=10)
    return scale_by_curvature(curvature, solver, policy_of(trust, own, "hessian_free", "damping"))
