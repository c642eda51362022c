"""Shampoo: a Kronecker product of roots, one along each axis of a leaf."""

from __future__ import annotations

from typing import Any

import optax

from secondorder.curvature import axis_eigen, axis_roots, gradient, running
from secondorder.operators import Axes
from secondorder.solvers import closed_form, grafted
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.trust import fixed

ADAGRAD = optax.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)


def shampoo(
    learning_rate: Any = 0.1,
    b1: Any = 0.9,
    b2: Any = 1.0,
    eps: Any = 1e-6,
    graft: optax.GradientTransformation | None = ADAGRAD,
    block_size: int | None = 1024,
    every: Any = 1,
    refresh: Any = 10,
    eigen: bool = False,
    weight_decay: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """``D = −α L^(-1/4) G R^(-1/4)``, ``L = εI + Σ G Gᵀ`` and ``R = εI + Σ Gᵀ G``.

    A leaf of k axes takes roots of order 2k, a vector its diagonal. Needs gradients alone:
    ``value_fn`` may be left out.

    Args:
      learning_rate: α or a schedule.
      b1: decay of the averaged steps, of the direction's and of the graft's; not corrected.
      b2: decay of the matrices; 1, as at first published, sums.
      eps: ε.
      graft: what gives each leaf the length of its step: AdaGrad, any other Optax transformation,
        or ``None`` for Shampoo's own length.
      block_size: longer axes are cut into blocks, each with matrices of its own.
      every, refresh: steps between two additions to the matrices, and between two roots; or, for
        roots where they are needed, ``refresh=curvature.drift(0.1)``.
      eigen: instead of roots, keep eigenvectors, whose eigenvalues are up to date at every step.
      weight_decay: decoupled: the parameters shrink by α times it a step.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> opt, w = so.shampoo(0.1), jnp.ones((2, 3))
      >>> updates, state = opt.update(w, opt.init(w), w)  # w is the gradient of ½‖w‖²
      >>> bool(jnp.all(w + updates < w))
      True

    Source: Gupta, Koren and Singer (2018), algorithms 1 and 2; Anil et al. (2020), algorithm I.
    """
    structure = (axis_eigen if eigen else axis_roots)(eps, Axes(block_size))
    curvature = running(gradient(), structure, b2, every, refresh, debias=False)
    direction = scale_by_curvature(curvature, grafted(closed_form(), graft, b1), fixed())
    return step_along(direction, learning_rate, weight_decay=weight_decay)
