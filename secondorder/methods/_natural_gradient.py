"""Natural gradient: the damped Gauss-Newton step, in the smaller of two spaces."""

from __future__ import annotations

import optax

from secondorder import settings
from secondorder.curvature import exact, ntk
from secondorder.operators import ggn
from secondorder.solvers import Solver, geodesic, sample_space
from secondorder.stepsize import step_along
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, fixed, line_search
from secondorder.trust._policy_of import policy_of


@settings.checked()
def natural_gradient(
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    trust: Trust | optax.ScalarOrSchedule | None = None,
    mu: Real = 0.0,
    acceleration: bool = True,
    layers: bool = False,
    solver: Solver | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``d = −α (JᵀMJ + λ I)⁻¹ g``, with M the loss's curvature at the outputs, ``M = S Sᵀ``.

    For a likelihood ``JᵀMJ`` is the Fisher matrix. With more parameters than outputs the system is
    that of the samples, ``SᵀJJᵀS + λ I``; ``diagnostics`` gives the order as ``dimension``.
    Repeated samples make it singular, which is handled. For large batches use
    :func:`secondorder.chunked`. By default every step is cut to the first fraction α = 1, ½, ¼, ...
    that descends further than the next one, and λ follows α; a step that does not descend is
    rejected.

    Args:
      learning_rate: α or a schedule; then λ is fixed, and nothing is evaluated or rejected.
        ``None`` searches along the path, which an objective with the right gradient and another
        value misleads, as in variational Monte Carlo: give a rate there.
      trust: a policy that gives a damping, or the λ that ``trust.line_search(λ)`` starts from, in
        the units of the trace of JᵀMJ; ``None`` for the precision to the power ¾.
        ``trust.damping(λ)`` lets λ follow the gain ratio of whole steps, for one trial a step, in
        the units of the curvature, as the λ of every policy that does not search. With a learning
        rate a number or a schedule is ``trust.fixed(λ)``, and ``None`` is 1e-3.
      mu: SPRING's μ: among the solutions, the step nearest to μ times the last one. Around 0.9 for
        batches that change, such as points drawn anew.
      acceleration: whether the search follows the path along which residuals shrink evenly, to
        third order, from two more derivatives of the model along it. Only for least-squares losses
        that are not chunked; others ignore it.
      layers: whether the Gram of the samples is computed from layer statistics, without J; for
        objectives by ``per_example``. See :func:`secondorder.curvature.ntk`.
      solver: solver of the system in the smaller space, for batches whose Gram is too large:
        ``solvers.cg(200, preconditioner=solvers.nystrom(50))``, which forms neither Gram nor J.

    Raises:
      TypeError: at update, a plain function as ``value_fn``: it takes an objective, as ``compose``,
        ``per_example`` or ``sum_of_squares`` make one.
      ValueError: both ``layers`` and a ``solver``; a trust policy that gives no damping, or, with a
        learning rate, one that is not fixed.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> r = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> f, start = so.sum_of_squares(r), jnp.array([-1.2, 1.0])
      >>> so.minimize(f, start, so.natural_gradient()).params.round(3)
      Array([1., 1.], dtype=float32)

    Source: Amari (1998); Müller and Zeinhofer (2023) for the search; Goldshlager, Abrahamsen and
    Lin (2024) for μ; Transtrum and Sethna (2012) for the acceleration.
    """
    if layers and solver is not None:
        raise ValueError(
            "natural_gradient got both layers=True, for a Gram of the samples, and a solver, which "
            "needs none. Pass one of the two."
        )
    curvature = ntk() if layers else exact(ggn)
    if learning_rate is not None:
        given = 1e-3 if trust is None else trust
        policy = policy_of(given, fixed, "natural_gradient with a learning rate")
        direction = scale_by_curvature(curvature, sample_space(mu, solver=solver), policy)
        return step_along(direction, learning_rate)
    policy = policy_of(trust, line_search, "natural_gradient", "damping")
    order = 3 if acceleration and policy.searches else 1
    found = geodesic(sample_space(mu, relative=policy.searches, solver=solver), order)
    return scale_by_curvature(curvature, found, policy)
