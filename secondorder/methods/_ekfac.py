"""EKFAC: K-FAC's eigenbases, with second moments in them as eigenvalues."""

from __future__ import annotations

import jax
import optax

from secondorder import settings
from secondorder.curvature import Estimator, layerwise
from secondorder.curvature._layerwise import Example
from secondorder.curvature._running import Drift, Steps
from secondorder.methods._kfac import layered
from secondorder.stepsize import Mask
from secondorder.tree import Real
from secondorder.trust import Trust


@settings.checked()
def ekfac(
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
    """``Δ = −Q_A [(Q_Aᵀ ∇W Q_G) / (s + λ)] Q_Gᵀ`` for each layer; the step is ``αΔ + μδ``.

    ``Q`` are the eigenvectors of K-FAC's A and G: exact at first, then improved by one orthogonal
    iteration at each refresh. ``s = Σₙ E[(Q_Aᵀ vₙ Q_G)²]`` are the second moments in this basis,
    averaged at every sample, also between refreshes: the best diagonal in the basis. Where a layer
    sees several positions of an example (sequences, convolutions), each counts as an example there,
    as in K-FAC's factors, so s is not of the sum over them. Damping is exact.

    Args:
      learning_rate, example, trust, momentum, decay, sample_every: as in :func:`kfac`.
      weight_decay, weight_decay_mask, estimator, reduce, burn_in: as in :func:`kfac`.
      refresh_every: steps from one pair of bases to the next; or ``curvature.drift(0.1)``, for
        refreshes by drift.

    Raises:
      TypeError: at ``init``, an ``example`` that is not an objective.
      ValueError: a trust policy that gives no damping, or, with a learning rate, one that is not
        fixed.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x, w = jax.random.normal(jax.random.key(0), (32, 3)), jnp.zeros((3, 2))
      >>> f = so.compose(so.squared_error(x @ jnp.ones((3, 2))), lambda w: x @ w)
      >>> bool(so.minimize(f, w, so.ekfac(example=f)).success)
      True

    Source: George et al. (2018).
    """
    layers = layerwise(
        example,
        estimator,
        decay=decay,
        sample_every=sample_every,
        refresh_every=refresh_every,
        eigen=True,
        reduce=reduce,
    )
    decay_of = (weight_decay, weight_decay_mask)
    return layered("ekfac", layers, learning_rate, trust, momentum, decay_of, burn_in)
