"""The dense system, by a Cholesky factorisation that an indefinite matrix cannot break."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from secondorder import tree
from secondorder.operators.dense import dense, ravel, unravel
from secondorder.quadratic import Quadratic
from secondorder.solvers.base import Solver, Step, Stop, make_step

MAX_SHIFTS = 60  # growing fourfold from 1e-3 of the matrix, far past any eigenvalue


def safe_cholesky(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Cholesky factor of ``A + τ I`` with the first of a growing series of τ ≥ 0 that is safe.

    Safe means that the factorisation exists and no pivot fell below the rounding level of its own
    diagonal entry; both are unchanged by rescaling the coordinates. τ = 0 is tried first (Nocedal
    and Wright 2006, algorithm 3.3).

    Returns:
      The lower factor (NaN for a matrix that is not finite) and τ.
    """
    n = matrix.shape[0]
    diagonal = jnp.diag(matrix)
    eps = jnp.finfo(matrix.dtype).eps
    size = jnp.max(jnp.abs(matrix), initial=0)
    unit = 1e-3 * jnp.where(size > 0, size, 1)
    lowest = jnp.min(diagonal, initial=jnp.inf)
    first = jnp.where(lowest > 0, 0, unit - jnp.minimum(lowest, 0)).astype(matrix.dtype)

    def attempt(shift):
        factor = jnp.linalg.cholesky(matrix + shift * jnp.eye(n, dtype=matrix.dtype))
        pivots = jnp.diag(factor) ** 2
        # NaN pivots compare false, so a failed factorisation is never safe.
        return factor, jnp.all(pivots > n * eps * (jnp.abs(diagonal) + shift))

    def grow(carry):
        shift, tries, _, _ = carry
        shift = jnp.maximum(4 * shift, unit)
        return (shift, tries + 1, *attempt(shift))

    def unsafe(carry):
        _, tries, _, safe = carry
        return ~safe & (tries < MAX_SHIFTS) & jnp.isfinite(size)

    shift, _, factor, _ = jax.lax.while_loop(
        unsafe, grow, (first, jnp.zeros((), jnp.int32), *attempt(first))
    )
    return factor, shift


def direct() -> Solver:
    """``d = −(B + (λ + τ) I)⁻¹ g`` by Cholesky, with the smallest tried shift τ ≥ 0 that is safe.

    For problems whose matrix fits in memory: forms ``B`` (n products, or the Jacobian where the
    curvature is ``Jᵀ M J``) and factors it, O(n³). An indefinite or singular ``B`` is shifted until
    it is safely positive definite, so the step is always a descent direction; the step reports
    ``Stop.SHIFTED``.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.hessian), so.solvers.direct(), so.trust.damping())
    """

    def update(quadratic: Quadratic, state, damping: jax.Array) -> tuple[Step, tuple]:
        like = quadratic.grad
        matrix, g = dense(quadratic.curvature, like), ravel(like)
        damped = matrix + damping.astype(matrix.dtype) * jnp.eye(g.size, dtype=matrix.dtype)
        factor, shift = safe_cholesky(damped)
        step = -cho_solve((factor, True), g)
        high = jax.lax.Precision.HIGHEST
        product = jnp.matmul(matrix, step, precision=high)
        error = product + (damping + shift) * step + g
        predicted = jnp.dot(g + 0.5 * product, step, precision=high)
        size = jnp.linalg.norm(g)
        stopped = jnp.where(shift > 0, Stop.SHIFTED.value, Stop.SOLVED.value)
        stopped = jnp.where(jnp.all(jnp.isfinite(step)), stopped, Stop.NONFINITE.value)
        direction = tree.cast(unravel(step, like), like)
        return make_step(
            direction,
            predicted,
            products=g.size,
            residual=jnp.linalg.norm(error) / jnp.where(size > 0, size, 1),
            stopped=stopped,
        ), state

    return Solver(init=lambda params: (), update=update)
