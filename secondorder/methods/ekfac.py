"""EKFAC: K-FAC's eigenbases, with the second moments themselves as eigenvalues."""

from __future__ import annotations

from typing import Any

import optax

from secondorder.curvature import Estimate, layerwise
from secondorder.methods.kfac import check_example, layered


def ekfac(
    learning_rate: Any = None,
    damping: Any = 0.1,
    example: Any = None,
    momentum: Any = None,
    decay: Any = 0.95,
    every: Any = 1,
    refresh: Any = 5,
    weight_decay: Any = None,
    estimator: Estimate | None = None,
    reduce: bool = False,
    burn_in: Any = 0,
    trials: Any = 1,
) -> optax.GradientTransformationExtraArgs:
    """``Δ = −Q_A [(Q_Aᵀ ∇W Q_G) / (s + λ)] Q_Gᵀ`` for each layer; the step is ``αΔ + μδ``.

    ``Q`` are the eigenvectors of K-FAC's A and G, exactly at first, and then nearer by one
    orthogonal iteration at each refresh; ``s = Σₙ E[(Q_Aᵀ vₙ Q_G)²]`` are the second moments in
    them, averaged at every sample while the bases age: the best diagonal there is in that basis.
    Damping is exact.

    Args:
      learning_rate, damping, example, momentum, decay, weight_decay, estimator, reduce,
        burn_in, trials: as in ``kfac``.
      every, refresh: steps between two samples, and between two bases; or, for bases where they are
        needed, ``refresh=curvature.drift(0.1)``.

    Raises:
      ValueError: no ``example``.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x, w = jax.random.normal(jax.random.key(0), (32, 3)), jnp.zeros((3, 2))
      >>> f = so.compose(so.squared_error(x @ jnp.ones((3, 2))), lambda w: x @ w)
      >>> bool(so.minimize(f, w, so.ekfac(example=f)).success)
      True

    Source: George et al. (2018).
    """
    check_example("ekfac", example)
    layers = layerwise(example, estimator, decay, every, refresh, eigen=True, reduce=reduce)
    return layered(layers, learning_rate, damping, momentum, weight_decay, burn_in, trials)
