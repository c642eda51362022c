"""Sophia: momentum divided by a sampled diagonal curvature, clipped."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from secondorder import settings
from secondorder.curvature import Estimator, diagonal, loss_sample, running
from secondorder.curvature._running import Steps
from secondorder.solvers import box_constrained, momentum
from secondorder.stepsize import Mask, step_along
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import fixed


@settings.checked()
def sophia(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    b1: Real = 0.96,
    b2: Real = 0.99,
    gamma: Real = 0.05,
    eps: Real = 1e-12,
    sample_every: Steps = 10,
    weight_decay: Real | None = None,
    weight_decay_mask: Mask = None,
    estimator: Estimator | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α clip(m / max(γ h, ε), 1)``, ``h`` the running diagonal of the Fisher.

    Args:
      learning_rate: α or a schedule.
      b1, b2: decays of ``m``, per step, and of ``h``, per sample; neither is corrected for bias.
      gamma: γ; the paper takes 0.05, and 0.01 with ``hutchinson()``.
      eps: ε.
      sample_every: steps from one sample of the curvature to the next, the paper's k.
      weight_decay: λ, decoupled: the parameters shrink by αλ a step.
      weight_decay_mask: the leaves that decay, as in ``optax.adamw``: a tree of bools, or a
        function of the parameters that returns one; ``None`` for all.
      estimator: ``curvature.fisher_sample()`` (default: Sophia-G; needs an objective),
        ``ggn_sample()`` (default for losses without a likelihood), or ``hutchinson()``
        (Sophia-H).

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> hessian_diagonal = so.sophia(gamma=0.01, estimator=so.curvature.hutchinson())

    Source: Liu et al. (2023), algorithms 1 to 3.
    """
    wide = lambda x, h: jnp.asarray(x, h.dtype)
    floored = diagonal(lambda h: jnp.maximum(wide(gamma, h) * h, wide(eps, h)))
    source = loss_sample() if estimator is None else estimator
    curvature = running(source, floored, decay=b2, sample_every=sample_every, debias=False)
    direction = scale_by_curvature(
        curvature, momentum(box_constrained(), b1, debias=False), fixed(1.0)
    )
    return step_along(
        direction,
        learning_rate,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
    )
