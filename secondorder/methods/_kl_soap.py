"""KL-SOAP: Adam in the eigenbasis of KL-Shampoo."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import axis_whitened, gradient, running
from secondorder.curvature._running import Drift, Steps
from secondorder.methods._soap import axes_of, preconditioned_average
from secondorder.stepsize import Mask
from secondorder.tree import Real


@settings.checked(b2=settings.MOMENTUM)
def kl_soap(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    *,
    b1: Real = 0.95,
    b2: Real = 0.95,
    eps: Real = 1e-8,
    refresh_every: Steps | Drift = 10,
    max_precond_dim: int = 10000,
    block_size: int | None = None,
    weight_decay: Real | None = None,
    weight_decay_mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """``D = −α Q_L (m̂' / (√v̂ + ε)) Q_Rᵀ``: :func:`soap` in the basis of :func:`kl_shampoo`.

    ``Q`` are the eigenvectors of the matrices of :func:`kl_shampoo`, each of gradients that the
    other whitens; the second moment is averaged in this basis at every step. The first update gives
    the first basis, and a step of zero. Needs only gradients: ``value_fn`` is optional.

    Args:
      learning_rate: α or a schedule.
      b1: decay of the average of the gradients, M, corrected for bias.
      b2: decay of the second moment, the matrices and their eigenvalues, corrected for bias.
      eps: ε.
      refresh_every: steps from one basis to the next; or ``curvature.drift(0.1)``, for refreshes by
        drift.
      max_precond_dim: longer axes have no factor.
      block_size: longer axes are cut into blocks, each with factors of its own; ``None`` cuts no
        axis.
      weight_decay: decoupled: the parameters shrink by α times it a step.
      weight_decay_mask: the leaves that decay, as in ``optax.adamw``: a tree of bools, or a
        function of the parameters that returns one; ``None`` for all.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> opt, w = so.kl_soap(0.1), jnp.ones((2, 3))
      >>> state = opt.init(w)
      >>> for _ in range(3):
      ...     updates, state = opt.update(w, state, w)  # w is the gradient of ½‖w‖²
      ...     w = w + updates
      >>> bool(jnp.all(w < 1))
      True

    Source: Lin et al. (2025).
    """
    structure = axis_whitened(axes_of(max_precond_dim, block_size), squares=True)
    curvature = running(gradient(), structure, decay=b2, refresh_every=refresh_every)
    decay = weight_decay, weight_decay_mask
    return preconditioned_average(curvature, learning_rate, b1, eps, 1, decay)
