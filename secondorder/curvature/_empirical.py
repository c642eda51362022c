"""The diagonal of the empirical Fisher matrix: a preconditioner for conjugate gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import settings
from secondorder.curvature._base import Curvature
from secondorder.curvature._running import running
from secondorder.curvature._samples import Estimator, per_example
from secondorder.curvature._structures import diagonal
from secondorder.operators._diagonal import SoftenedDiagonal
from secondorder.tree import Real


@settings.checked()
def empirical_diagonal(
    exponent: float = 0.75, *, samples: int = 8, decay: Real = 0.9, seed: int = 0
) -> Curvature:
    """``D = w Σₙ gₙ ∘ gₙ`` of the per-example gradients, with the inverse ``(D + λ)^−exponent``.

    ``w`` is ``1/N`` for a loss that is a mean over examples, 1 for a sum, so D has the units of the
    curvature. For ``hessian_free(preconditioner=…)``; an exponent below 1 compensates for the
    missing off-diagonal curvature. Each sample is a backward pass over the batch, with a random
    sign per example, and has relative variance 2; the average over steps contains about
    ``samples/(1 − decay)`` of them.

    Args:
      exponent: ¾ as in Martens (2010); 1 for the plain inverse.
      samples: number of samples per update.
      decay: decay of the average, per update.
      seed: seed of the random signs.

    Raises:
      ValueError: ``samples`` below 1.

    Example:
      >>> import secondorder as so
      >>> opt = so.hessian_free(preconditioner=so.curvature.empirical_diagonal())

    Source: Martens (2010), section 4.7; Chapelle and Erhan (2011).
    """
    one = per_example()

    def draw(grads, params, value_fn, key):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(samples))
        return jax.lax.map(lambda k: one.draw(grads, params, value_fn, k), keys)

    mean = diagonal(statistic=lambda squares: jnp.mean(squares, axis=0))
    structure = mean._replace(
        operator=lambda like, averages, frame: SoftenedDiagonal(averages, exponent)
    )
    return running(Estimator(draw), structure, decay=decay, seed=seed)
