"""Damped least squares by orthogonal factorisation of the Jacobian."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from secondorder.solvers.base import Solver, Stop
from secondorder.solvers.rows import Answer, Rows, on_rows


def qr() -> Solver:
    """``min_d ½‖R d + r‖² + ½ λ ‖D d‖²`` by QR, for a curvature ``B = RᵀR`` with ``g = Rᵀ r``.

    ``R = Sᵀ J``, the Jacobian of the model under the root of the loss's curvature; ``r`` is the
    residual (for other losses than least squares: the vector with ``S r = ∇ℓ``). λ is relative: 1
    damps a column as strongly as its own norm; it is kept within ``[ε, 1/ε]``. A
    rank-deficient ``R`` is reported as ``Stop.SINGULAR``; undamped, :func:`svd` solves it better.
    With fewer rows than parameters the factorisation is of ``Rᵀ``. The memory is the running column
    norms, shaped like the parameters.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.qr(), so.trust.damping(1e-3))
    """

    def solve(rows: Rows, factors: tuple, damping: jax.Array) -> Answer:
        # Beside a weight beyond 1/√ε the rounding of the factorisation would drown the rows.
        eps = jnp.finfo(rows.a.dtype).eps
        weight = jnp.sqrt(jnp.clip(damping, eps, 1 / eps))
        tall = rows.a.shape[0] >= rows.a.shape[1]
        y, singular = (_tall if tall else _wide)(rows.a, rows.r, rows.rest, weight)
        return Answer(y, jnp.where(singular, Stop.SINGULAR.value, Stop.SOLVED.value))

    return on_rows("qr", lambda rows: (), solve)


def _tall(a, r, rest, weight):
    """``min ½‖[a; w I] y + [r; 0]‖² + rest·y`` from the R-factor of ``[a r; w I 0]``."""
    m, n = a.shape
    stacked = jnp.concatenate(
        [
            jnp.concatenate([a, r[:, None]], axis=1),
            jnp.concatenate([weight * jnp.eye(n, dtype=a.dtype), jnp.zeros((n, 1), a.dtype)], 1),
        ]
    )
    factor = jnp.linalg.qr(stacked, mode="r")
    upper, rotated = factor[:n, :n], factor[:n, n]
    y = -solve_triangular(upper, rotated)
    y = y - solve_triangular(upper, solve_triangular(upper, rest, trans=1))
    return y, _is_singular(upper)


def _wide(a, r, rest, weight):
    """The same minimum from ``[aᵀ; w I] = Q U``: ``y = −Q₁ U⁻ᵀ r``, then the part for ``rest``."""
    m, n = a.shape
    q, upper = jnp.linalg.qr(jnp.concatenate([a.T, weight * jnp.eye(m, dtype=a.dtype)]))
    q1 = q[:n]
    y = -q1 @ solve_triangular(upper, r, trans=1)
    # (aᵀa + w² I)⁻¹ = (I − Q₁Q₁ᵀ)/w², the projection off the rows
    return y - (rest - q1 @ (q1.T @ rest)) / weight**2, _is_singular(upper)


def _is_singular(upper: jax.Array) -> jax.Array:
    """A pivot at the level that the floor of the damping alone would leave."""
    pivots = jnp.abs(jnp.diag(upper))
    limit = jnp.sqrt(4 * jnp.finfo(upper.dtype).eps)
    return jnp.min(pivots, initial=jnp.inf) <= limit * jnp.max(pivots, initial=0)
