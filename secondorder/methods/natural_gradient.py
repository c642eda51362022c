"""Natural gradient: the damped Gauss-Newton step, in the smaller of two spaces."""

from __future__ import annotations

from typing import Any

import optax

from secondorder import trust
from secondorder.curvature import exact, layer_grams
from secondorder.operators import ggn
from secondorder.solvers import Solver, dual
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature


def natural_gradient(
    learning_rate: Any = None,
    damping: Any = None,
    momentum: Any = 0.0,
    *,
    search: bool = True,
    acceleration: bool = True,
    layers: bool = False,
    solver: Solver | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α (JᵀMJ + λ I)⁻¹ g``, with M the loss's curvature at the outputs, ``M = S Sᵀ``.

    For a likelihood ``JᵀMJ`` is the Fisher matrix. With more parameters than outputs the system is
    that of the samples, ``SᵀJJᵀS + λ I``; ``diagnostics`` says which, as ``dimension``. Repeated
    samples make it singular, and do no harm. Large batches go through in chunks, by
    :func:`secondorder.chunked`. By default every step is cut to the first fraction α = 1, ½, ¼, ...
    that descends further than the next one, and λ follows α; a step that does not descend is
    rejected.

    Args:
      learning_rate: α or a schedule; then λ is fixed, and nothing is evaluated or rejected.
      damping: where steps are searched, the first λ, as a part of the trace of JᵀMJ; ``None`` for
        the precision to the power ¾. Else in the units of the curvature, 1e-3 for ``None``: the
        first λ, or, with a learning rate, the fixed one.
      momentum: SPRING's μ: of the steps, the one nearest to μ times the last one. For batches that
        change, such as points drawn anew, around 0.9.
      search: where there is no learning rate: whether to search, or to let λ follow the gain ratio
        of whole steps, for one trial a step.
      acceleration: whether the search follows the path along which residuals shrink evenly, to
        third order, for two derivatives of the model along it; least-squares losses that are not
        chunked alone, others ignore it.
      layers: whether the Gram of the samples is made of layer statistics, which never form J;
        of objectives by ``per_example``. See :func:`secondorder.curvature.layer_grams`.
      solver: of the system in the smaller space, for batches whose Gram is too large:
        ``solvers.cg(200, preconditioner=solvers.nystrom(50))``; then neither is formed, nor J.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.
      ValueError: both ``layers`` and a ``solver``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> r = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> f, start = so.sum_of_squares(r), jnp.array([-1.2, 1.0])
      >>> so.minimize(f, start, so.natural_gradient()).params.round(3)
      Array([1., 1.], dtype=float32)

    Source: Amari (1998); Müller and Zeinhofer (2023) for the search; Goldshlager, Hu and Lin (2024)
    for the momentum; Transtrum and Sethna (2012) for the acceleration.
    """
    if layers and solver is not None:
        raise ValueError(
            "natural_gradient got both layers=True, for a Gram of the samples, and a solver, which "
            "needs none. Pass one of the two."
        )
    curvature = layer_grams() if layers else exact(ggn)
    if search and learning_rate is None:
        found = dual(momentum, 3 if acceleration else 1, relative=True, solver=solver)
        return scale_by_curvature(curvature, found, trust.searched(damping))
    damping = 1e-3 if damping is None else damping
    policy = trust.damping(damping) if learning_rate is None else trust.fixed(damping)
    direction = scale_by_curvature(curvature, dual(momentum, solver=solver), policy)
    return direction if learning_rate is None else step_along(direction, learning_rate)
