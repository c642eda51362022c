"""SOAP: Adam in the eigenbasis of Shampoo."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import Curvature, axis_basis, gradient, running
from secondorder.curvature._running import Drift, Steps
from secondorder.operators import Axes
from secondorder.solvers import apply_inverse, momentum
from secondorder.stepsize import Mask, step_along
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import fixed


@settings.checked()
def soap(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    *,
    b1: Real = 0.95,
    b2: Real = 0.95,
    eps: Real = 1e-8,
    refresh_every: Steps | Drift = 10,
    max_precond_dim: int = 10000,
    block_size: int | None = None,
    skip_first_step: bool = True,
    current_gradient: bool = False,
    weight_decay: Real | None = None,
    weight_decay_mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """``D = −α Q_L (m̂' / (√v̂ + ε)) Q_Rᵀ``: Adam on ``Q_Lᵀ G Q_R``, and likewise for more axes.

    ``Q`` are the eigenvectors of the running ``G Gᵀ`` and ``Gᵀ G``; the second moment is averaged
    in this basis at every step. The first update gives the first basis, and a step of zero, as in
    the authors' program. Needs only gradients: ``value_fn`` is optional.

    Args:
      learning_rate: α or a schedule.
      b1, b2: decays of the first and second moment; ``b2`` also of the matrices.
      eps: ε.
      refresh_every: steps from one basis to the next, the paper's f; or ``curvature.drift(0.1)``,
        for refreshes by drift.
      max_precond_dim: longer axes keep the identity as basis; vectors do, too.
      block_size: longer axes are cut into blocks, each with a basis of its own, and none keeps the
        identity for its length; ``None`` cuts no axis.
      skip_first_step: True for a first update that only computes the first basis. False for a first
        step of Adam, ±α in every coordinate, whose gradient counts in both moments.
      current_gradient: True for a step in the basis that includes its own gradient, for very large
        batches, with little noise to fit; with ``refresh_every=1`` that is one QR a step.
      weight_decay: decoupled: the parameters shrink by α times it a step.
      weight_decay_mask: the leaves that decay, as in ``optax.adamw``: a tree of bools, or a
        function of the parameters that returns one; ``None`` for all.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> opt, w = so.soap(0.1), jnp.ones((2, 3))
      >>> state = opt.init(w)
      >>> for _ in range(3):
      ...     updates, state = opt.update(w, state, w)  # w is the gradient of ½‖w‖²
      ...     w = w + updates
      >>> bool(jnp.all(w < 1))
      True

    Source: Vyas et al. (2024), algorithms 3 and 4.
    """
    structure = axis_basis(
        axes_of(max_precond_dim, block_size),
        recount=not skip_first_step,
        current_gradient=current_gradient,
    )
    curvature = running(gradient(), structure, decay=b2, refresh_every=refresh_every)
    burn_in, decay = int(skip_first_step), (weight_decay, weight_decay_mask)
    return preconditioned_average(curvature, learning_rate, b1, eps, burn_in, decay)


def preconditioned_average(
    curvature: Curvature,
    learning_rate: optax.ScalarOrSchedule,
    b1: Real,
    eps: Real,
    burn_in: int,
    weight_decay: tuple[Real | None, Mask],
) -> optax.GradientTransformationExtraArgs:
    """``−α (B + ε)⁻¹ M`` for an average M of the gradients and a curvature B of theirs."""
    solver, (rate, mask) = momentum(apply_inverse(), b1), weight_decay
    direction = scale_by_curvature(curvature, solver, fixed(eps), burn_in=burn_in)
    return step_along(direction, learning_rate, weight_decay=rate, weight_decay_mask=mask)


def axes_of(max_precond_dim: int, block_size: int | None) -> Axes:
    """No axis is too long where axes are cut."""
    return Axes(block_size, None if block_size else max_precond_dim)
