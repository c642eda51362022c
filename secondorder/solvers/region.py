"""Least squares in a trust region by triangular factors, as MINPACK has it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from secondorder.solvers.base import Solver, Stop
from secondorder.solvers.rows import Answer, Triangle, back_substituted, damped, no_factors, on_rows

MAX_ITERATIONS = 10  # two or three are usual
CLOSE = 0.1  # ‖y‖ within this part of Δ is at the boundary


def qr_region(acceleration: bool = False) -> Solver:
    """``min_d ½‖R d + r‖²`` over ``‖D d‖ ≤ Δ``, its length met within a tenth (Moré 1978).

    One QR factorisation per point; each trial then finds the multiplier λ with
    ``‖y(λ)‖ ≈ Δ`` by Newton's iteration on ``1/‖y(λ)‖``, each step of it a QR factorisation of
    ``[U; √λ I]``, of the size of the parameters alone. Of a rank-deficient ``R`` the undamped step
    is that of ``λ = ε^¾ ‖U‖²``, reported as ``Stop.SINGULAR``;
    :func:`secondorder.solvers.svd_region` is exact there, at several times the cost.

    Args:
      acceleration: as in :func:`secondorder.solvers.qr`.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.qr_region(), so.trust.radius())

    Source: Moré (1978), sections 3 and 5.
    """
    return on_rows("qr_region", no_factors, in_region, "radius", acceleration)


def in_region(triangle: Triangle, factors: tuple, delta: jax.Array) -> Answer:
    """The step of :func:`qr_region`."""
    upper, q, rest = triangle[:3]
    k = q.size
    eps = jnp.finfo(q.dtype).eps
    pivots = jnp.abs(jnp.diag(upper))
    largest = jnp.max(pivots, initial=0)
    singular = jnp.min(pivots, initial=jnp.inf) <= 1e2 * k * eps * largest
    # Far above the rounding that stands for zero among singular values, squared or not. Of the rows
    # as they are now: the scaling may be that of much larger ones, long left behind.
    size = jnp.where(largest > 0, largest, 1)
    least = jnp.where(singular, eps**0.75 * size**2, 0).astype(q.dtype)

    def refine(carry):
        lam, factor, z, count = carry
        length = jnp.linalg.norm(z)
        slope = jnp.sum(solve_triangular(factor, z / length, trans=1) ** 2)
        following = jnp.maximum(lam + (length - delta) / (delta * slope), least)
        lam = jnp.where((count == 0) & singular, least, following)
        factor, rotated = damped(triangle, lam)
        return lam, factor, back_substituted(factor, rotated, rest), count + 1

    def far(carry):
        lam, _, z, count = carry
        excess = jnp.linalg.norm(z) - delta
        outside = (excess > CLOSE * delta) | ((excess < -CLOSE * delta) & (lam > least))
        return ((count == 0) & singular) | (outside & (count < MAX_ITERATIONS))

    start = (
        jnp.zeros_like(least),
        upper,
        back_substituted(upper, q, rest),
        jnp.zeros((), jnp.int32),
    )
    lam, factor, z, _ = jax.lax.while_loop(far, refine, start)
    boundary = lam > least
    stopped = jnp.where(singular, Stop.SINGULAR.value, Stop.SOLVED.value)
    stopped = jnp.where(boundary, Stop.BOUNDARY.value, stopped)
    return Answer(z, stopped, boundary, factor)
