"""Exact curvature at the current parameters, without memory of earlier ones."""

from __future__ import annotations

from collections.abc import Callable

import jax

from secondorder import settings
from secondorder.curvature._base import Curvature
from secondorder.operators._base import Identity, Operator


@settings.checked()
def exact(operator: Callable[..., Operator], *, seed: int | None = None, **options) -> Curvature:
    """The curvature ``operator(value_fn, params, **options)``, computed at every step.

    Args:
      operator: ``hessian``, ``ggn``, ``fisher``, ``empirical_fisher``, or any function with the
        same arguments.
      seed: seed of the ``key=`` of sampled operators (``fisher``), a new key at every step.
      options: keyword arguments of ``operator``, such as ``samples=4``.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.cg(), so.trust.damping())
      >>> natural = so.exact(so.fisher, seed=0, samples=2)
    """
    if seed is None:
        return Curvature(
            init=lambda params: (),
            update=lambda grads, state, params, value_fn: (
                operator(value_fn, params, **options),
                state,
            ),
        )

    def update(grads, state, params, value_fn):
        del grads
        carry, key = jax.random.split(jax.random.wrap_key_data(state))
        return operator(value_fn, params, key=key, **options), jax.random.key_data(carry)

    return Curvature(init=lambda params: jax.random.key_data(jax.random.key(seed)), update=update)


def identity() -> Curvature:
    """``B = I``: no curvature; Newton's step is the negative gradient.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.curvature.identity(), so.solvers.apply_inverse(), so.trust.fixed())
    """
    return Curvature(
        init=lambda params: (), update=lambda g, state, params, fn: (Identity(), state)
    )
