"""KL-Shampoo: Shampoo whose factors whiten one another."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import axis_whitened, gradient, running
from secondorder.curvature._running import Drift, Steps
from secondorder.methods._soap import axes_of, preconditioned_average
from secondorder.stepsize import Mask
from secondorder.tree import Real


@settings.checked(b2=settings.MOMENTUM)
def kl_shampoo(
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
    """``D = −α Q_L [(Q_Lᵀ M Q_R) / (√d_L √d_Rᵀ + ε)] Q_Rᵀ``: Shampoo that needs no grafting.

    Each matrix is of gradients that the other whitens, ``L ← b2 L + (1−b2) G R⁻¹ Gᵀ / n``, with n
    columns and ``R⁻¹ = Q_R diag(1/d_R) Q_Rᵀ``. The eigenvalues are averaged at every step,
    ``d_L ← b2 d_L + (1−b2) diag(Q_Lᵀ G R⁻¹ Gᵀ Q_L) / n``; a basis takes one orthogonal iteration at
    each refresh. In a leaf of more axes all others whiten each; a vector has a diagonal, as in
    Adam. The first update gives the first basis and ``d = rms(G)``, and a step of zero. Unlike
    :func:`soap` it stores no second moment of the leaf's size. Needs only gradients: ``value_fn``
    is optional.

    Args:
      learning_rate: α or a schedule.
      b1: decay of the average of the gradients, M, corrected for bias.
      b2: decay of the matrices and the eigenvalues, corrected for bias.
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
      >>> opt, w = so.kl_shampoo(0.1), jnp.ones((2, 3))
      >>> state = opt.init(w)
      >>> for _ in range(3):
      ...     updates, state = opt.update(w, state, w)  # w is the gradient of ½‖w‖²
      ...     w = w + updates
      >>> bool(jnp.all(w < 1))
      True

    Source: Lin et al. (2025).
    """
    structure = axis_whitened(axes_of(max_precond_dim, block_size))
    curvature = running(gradient(), structure, decay=b2, refresh_every=refresh_every)
    decay = weight_decay, weight_decay_mask
    return preconditioned_average(curvature, learning_rate, b1, eps, 1, decay)
