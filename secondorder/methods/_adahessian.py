"""AdaHessian: Adam with the Hessian's diagonal in place of the gradient's second moment."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from secondorder import settings
from secondorder.curvature import diagonal, hutchinson, running
from secondorder.curvature._running import Steps
from secondorder.solvers import apply_inverse, momentum
from secondorder.stepsize import Mask, step_along
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import fixed


def spatial_average(d: jax.Array) -> jax.Array:
    """The mean over the window of a convolution: leaves of 4 axes or more, all but the last two."""
    if d.ndim < 4:
        return d
    window = tuple(range(d.ndim - 2))
    return jnp.broadcast_to(jnp.mean(d, window, keepdims=True), d.shape)


@settings.checked()
def adahessian(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    b1: Real = 0.9,
    b2: Real = 0.999,
    eps: Real = 1e-4,
    hessian_power: Real = 1.0,
    weight_decay: Real | None = None,
    weight_decay_mask: Mask = None,
    sample_every: Steps = 1,
    average: Callable[[jax.Array], jax.Array] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α m̂ / (√v̂ᵏ + ε)``, ``v`` the mean square of sampled diagonals of the Hessian.

    Args:
      learning_rate: α or a schedule.
      b1, b2: decays of ``m`` and ``v``, corrected for bias.
      eps: ε.
      hessian_power: k, between 0 (momentum alone) and 1.
      weight_decay: decoupled: the parameters shrink by α times it a step.
      weight_decay_mask: the leaves that decay, as in ``optax.adamw``: a tree of bools, or a
        function of the parameters that returns one; ``None`` for all.
      sample_every: steps from one sample of the diagonal to the next.
      average: function of a sampled leaf; ``None`` averages over the window of a convolution, for
        kernels stored as in Flax and Haiku, channels last.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> f = lambda w: 0.5 * jnp.sum(w**2)
      >>> opt, w = so.adahessian(0.1), jnp.ones((2, 3))
      >>> updates, state = opt.update(jax.grad(f)(w), opt.init(w), w, value_fn=f)
      >>> float((w + updates)[0, 0])
      0.9

    Source: Yao et al. (2021), algorithm 1.
    """
    mean = spatial_average if average is None else average
    entries = lambda v: jnp.sqrt(v) ** jnp.asarray(hessian_power, v.dtype)
    structure = diagonal(entries, statistic=lambda d: mean(d) ** 2)
    curvature = running(hutchinson(), structure, decay=b2, sample_every=sample_every)
    direction = scale_by_curvature(curvature, momentum(apply_inverse(), b1), fixed(eps))
    return step_along(
        direction,
        learning_rate,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
    )
