"""Shampoo: a Kronecker product of inverse roots, one along each axis of a leaf."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import axis_eigen, axis_roots, gradient, running
from secondorder.curvature._running import Drift, Steps
from secondorder.operators import Axes
from secondorder.solvers import apply_inverse, grafted
from secondorder.stepsize import Mask, step_along
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import fixed

# The length of Adam's step; the averages of ``grafted`` take the place of its first moment.
ADAM = optax.scale_by_rms(0.99, eps=1e-8, eps_in_sqrt=False, bias_correction=True)


@settings.checked(exponent=settings.POSITIVE)
def shampoo(
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    b1: Real = 0.9,
    b2: Real = 0.99,
    eps: Real = 1e-12,
    graft: optax.GradientTransformation | None = ADAM,
    exponent: Real | None = None,
    block_size: int | None = 1024,
    sample_every: Steps = 1,
    refresh_every: Steps | Drift = 10,
    eigen: bool = False,
    weight_decay: Real | None = None,
    weight_decay_mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """``D = −α L^(-1/4) G R^(-1/4)`` at Adam's length, ``L`` and ``R`` means of ``G Gᵀ``, ``Gᵀ G``.

    A leaf of k axes has roots of order 2k; a vector has a diagonal. εI is added to the matrices,
    and every step, also the first, uses them. Needs only gradients: ``value_fn`` is optional.

    As first published: ``b2=1`` (sums), ``eps=1e-4`` or so, ``graft=None``, ``b1=0``; with
    AdaGrad's length: ``graft=optax.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)``.

    Args:
      learning_rate: α or a schedule.
      b1: decay of the averages of both steps, the direction's and the graft's; not bias-corrected.
      b2: decay of the matrices, corrected for bias; 1 gives sums.
      eps: ε; eigenvalues below the rounding level of the largest are raised to this level.
      graft: source of the length of each leaf's step: an Optax transformation, by default Adam with
        ``b2=0.99``, or ``None`` for Shampoo's own length.
      exponent: power of each matrix; ``None`` for 1/2k, as published; ½ for ``L`` and ``R`` as the
        factors of a Kronecker product.
      block_size: longer axes are cut into blocks, each with matrices of its own.
      sample_every: steps from one addition to the matrices to the next.
      refresh_every: steps from one computation of the roots to the next; or
        ``curvature.drift(0.1)``, for refreshes by drift, where 1/exponent is a whole number.
      eigen: keep eigenvectors instead of roots, with eigenvalues computed at every step.
      weight_decay: decoupled: the parameters shrink by α times it a step.
      weight_decay_mask: the leaves that decay, as in ``optax.adamw``: a tree of bools, or a
        function of the parameters that returns one; ``None`` for all.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> opt, w = so.shampoo(0.1), jnp.ones((2, 3))
      >>> updates, state = opt.update(w, opt.init(w), w)  # w is the gradient of ½‖w‖²
      >>> bool(jnp.all(w + updates < w))
      True

    Source: Gupta, Koren and Singer (2018), algorithms 1 and 2; Anil et al. (2020), algorithm I;
    Shi et al. (2023) for the defaults.
    """
    structure = (axis_eigen if eigen else axis_roots)(eps, Axes(block_size), exponent)
    curvature = running(
        gradient(),
        structure,
        decay=b2,
        sample_every=sample_every,
        refresh_every=refresh_every,
    )
    direction = scale_by_curvature(curvature, grafted(apply_inverse(), graft, b1), fixed())
    return step_along(
        direction,
        learning_rate,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
    )
