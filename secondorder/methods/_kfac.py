"""K-FAC: the curvature of each layer as a Kronecker product of two small matrices."""

from __future__ import annotations

import jax
import optax

from secondorder import settings, solvers
from secondorder.curvature import Curvature, Estimator, exact, layerwise, preconditioned
from secondorder.curvature._layerwise import Example
from secondorder.curvature._running import Drift, Steps
from secondorder.operators import ggn
from secondorder.stepsize import Mask, decayed, step_along
from secondorder.transform import scale_by_curvature
from secondorder.tree import Real
from secondorder.trust import Trust, damping, fixed
from secondorder.trust._policy_of import policy_of


@settings.checked()
def kfac(
    learning_rate: optax.ScalarOrSchedule | None = None,
    *,
    example: Example,
    trust: Trust | optax.ScalarOrSchedule = 0.1,
    momentum: Real | None = None,
    decay: Real = 0.95,
    sample_every: Steps = 1,
    refresh_every: Steps | Drift = 5,
    weight_decay: Real | None = None,
    weight_decay_mask: Mask = None,
    estimator: Estimator | None = None,
    reduce: bool = False,
    burn_in: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """``Δ = −(A + π√λ I)⁻¹ ∇W (G + √λ/π I)⁻¹`` for each layer; the step is ``αΔ + μδ``.

    Without a learning rate, α and μ minimise the exact quadratic model over ``Δ`` and the last step
    ``δ``, λ follows the gain ratio, and a step that does not decrease the objective is rejected.
    A weight with several uses in the program, as where a loss contains derivatives of the model,
    has the A and G whose Kronecker product has the partial traces of the sum over its uses.

    Args:
      learning_rate: α or a schedule; then λ is fixed, Δ is of the averaged gradient, and nothing is
        evaluated or rejected. ``None`` for the quadratic model.
      example: an example objective, or a function of the parameters that returns one; only shapes
        and the model's use of its leaves count, as ``secondorder.layer_table`` prints them.
        Optax's ``inject_hyperparams`` takes functions for schedules: ``static_args="example"``.
      trust: a policy that gives a damping, or the λ that ``trust.damping(λ)`` starts from, in the
        units of the curvature. If batches change, λ falls slowly, and only if the last step has a
        good gain on the next batch too, at the cost of one more value.
        ``trust.damping(λ, trial_every=5)`` tries fewer steps, ``trust.fixed(λ)`` none. With a
        learning rate, a number or a schedule means ``trust.fixed(λ)``.
      momentum: decay of an average of gradients, from which Δ is computed. Default: 0.9 with
        ``learning_rate``, otherwise off. With the quadratic model it keeps α from being fitted to
        the noise of one batch.
      decay: decay of the averages A and G.
      sample_every: steps from one sample of A and G to the next.
      refresh_every: steps from one computation of the inverses to the next; or
        ``curvature.drift(4.0)``, for refreshes by drift.
      weight_decay: decoupled: the parameters shrink by this part (times α) a step.
      weight_decay_mask: the leaves that decay, as in ``optax.adamw``: a tree of bools, or a
        function of the parameters that returns one; ``None`` for all.
      estimator: the source of the samples: ``curvature.fisher_sample()`` (default for a
        likelihood), ``ggn_sample()`` (default for other losses), ``ggn_components()`` for no
        sampling, ``per_example()`` for the empirical Fisher.
      reduce: whether positions that share weights are summed before A and G, or count as examples.
      burn_in: number of first updates that only average A and G; parameters and λ stay.

    Raises:
      TypeError: at ``init``, an ``example`` that is not an objective.
      ValueError: a trust policy that gives no damping, or, with a learning rate, one that is not
        fixed.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x, w = jax.random.normal(jax.random.key(0), (32, 3)), jnp.zeros((3, 2))
      >>> f = so.compose(so.squared_error(x @ jnp.ones((3, 2))), lambda w: x @ w)
      >>> bool(so.minimize(f, w, so.kfac(example=f)).success)
      True

    Source: Martens and Grosse (2015); Eschenhagen et al. (2023) for ``reduce``.
    """
    layers = layerwise(
        example,
        estimator,
        decay=decay,
        sample_every=sample_every,
        refresh_every=refresh_every,
        reduce=reduce,
    )
    decay_of = (weight_decay, weight_decay_mask)
    return layered("kfac", layers, learning_rate, trust, momentum, decay_of, burn_in)


def layered(
    user: str,
    layers: Curvature,
    learning_rate: optax.ScalarOrSchedule | None,
    trust: Trust | optax.ScalarOrSchedule,
    momentum: Real | None,
    weight_decay: tuple[Real | None, Mask],
    burn_in: int | jax.Array,
) -> optax.GradientTransformationExtraArgs:
    """The method of a layer-wise curvature: by the quadratic model, or with a learning rate."""
    rate, mask = weight_decay
    solver = solvers.apply_inverse()
    if learning_rate is not None:
        policy = policy_of(trust, fixed, f"{user} with a learning rate")
        solver = solvers.momentum(solver, 0.9 if momentum is None else momentum)
        direction = scale_by_curvature(layers, solver, policy, burn_in=burn_in)
        return step_along(direction, learning_rate, weight_decay=rate, weight_decay_mask=mask)
    policy = policy_of(trust, damping, user, "damping")._replace(lazy=True)
    if momentum is not None:
        solver = solvers.momentum(solver, momentum)
    model = preconditioned(exact(ggn), layers)
    direction = scale_by_curvature(model, solvers.optimal_scaling(solver), policy, burn_in=burn_in)
    return direction if rate is None else optax.chain(direction, decayed(rate, mask))
