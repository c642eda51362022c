"""Solver of damped least squares by QR factorisation of the Jacobian."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder.solvers._base import Solver
from secondorder.solvers._least_squares import (
    Answer,
    Triangle,
    back_substituted,
    damped,
    no_factors,
    on_rows,
)
from secondorder.step import Stop


def qr() -> Solver:
    """``min_d ½‖R d + r‖² + ½ λ ‖D d‖²`` by QR, for a curvature ``B = RᵀR`` with ``g = Rᵀ r``.

    ``R = Sᵀ J``, the Jacobian of the model times the root of the loss's curvature; ``r`` is the
    residual (for other losses than least squares, the vector with ``S r = ∇ℓ``). λ is relative to
    the squared column norms, and clipped to ``[ε‖U‖², 1/ε]``. A rank-deficient ``R`` is reported as
    ``Stop.SINGULAR``; without damping :func:`svd` solves it better. With fewer rows than
    parameters, ``Rᵀ`` is factorised. The memory is the largest norm so far of each column, shaped
    like the parameters.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.qr(), so.trust.damping(1e-3))
    """

    def solve(triangle: Triangle, factors: tuple, damping: jax.Array) -> Answer:
        # With a weight above 1/√ε, the rounding of the factorisation would exceed the rows.
        eps = jnp.finfo(damping.dtype).eps
        size = jnp.max(jnp.abs(jnp.diag(triangle.upper)), initial=0) ** 2
        floor = eps * jnp.where(size > 0, size, 1)
        upper, q = damped(triangle, jnp.clip(damping, floor, 1 / eps))
        z = back_substituted(upper, q, triangle.rest)
        stopped = jnp.where(_is_singular(upper), Stop.SINGULAR.value, Stop.SOLVED.value)
        again = lambda v: back_substituted(upper, jnp.zeros_like(v), v)
        return Answer(z, stopped, again=again)

    return on_rows(no_factors, solve)


def _is_singular(upper: jax.Array) -> jax.Array:
    """Whether a pivot is as small as the minimum damping alone makes it."""
    pivots = jnp.abs(jnp.diag(upper))
    limit = jnp.sqrt(4 * jnp.finfo(upper.dtype).eps)
    return jnp.min(pivots, initial=jnp.inf) <= limit * jnp.max(pivots, initial=0)
