"""Least-squares solvers in the singular basis of the Jacobian: damped, trust region, dogleg.

One decomposition serves every scalar, so a rejected step costs O(n²). Singular values below ``k ε``
of the largest count as zero and their directions get no step, so the step is the shortest of all
solutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg._batched import singular
from secondorder.solvers._base import Solver
from secondorder.solvers._least_squares import HIGHEST, Answer, Triangle, on_rows
from secondorder.step import Stop

MAX_ITERATIONS = 10  # two or three are usual
CLOSE = 0.1  # relative tolerance of ‖y‖ = Δ


class Singular(NamedTuple):
    """``U`` in its singular basis.

    Attributes:
      s: singular values in any order; values at rounding level are set to zero.
      vt: right singular vectors as rows, in the same order.
      c: coefficients of the gradient ``Uᵀq + rest``; zero where s is zero.
    """

    s: jax.Array
    vt: jax.Array
    c: jax.Array


def singular_basis(triangle: Triangle, *ignored: object) -> Singular:
    """The factors of these solvers; s is NaN for a non-finite triangle."""
    del ignored
    upper, q, rest = triangle[:3]
    sound = jnp.all(jnp.isfinite(upper)) & jnp.all(jnp.isfinite(q))
    s, turned, v = singular(jnp.where(sound, upper, 0))
    kept = s > s.size * jnp.finfo(s.dtype).eps * jnp.max(s, initial=0)
    c = jnp.matmul(turned.T, q, precision=HIGHEST) + jnp.matmul(v.T, rest, precision=HIGHEST)
    return Singular(tree.nan_unless(sound, jnp.where(kept, s, 0)), v.T, jnp.where(kept, c, 0))


def _in_singular_basis(solve: Callable, reads: str) -> Solver:
    """A least-squares solver from ``solve(s, c, scale) -> (coefficients, at_boundary)``."""

    def answer(triangle: Triangle, basis: Singular, scale: jax.Array) -> Answer:
        coefficients, boundary = solve(basis.s, basis.c, scale)
        z = jnp.matmul(basis.vt.T, coefficients, precision=HIGHEST)
        if reads == "damping":  # outside the kept directions, damping is the only curvature
            kept = jnp.where((basis.s > 0)[:, None], basis.vt, 0)
            off = triangle.rest - kept.T @ (kept @ triangle.rest)
            z = z - off / jnp.where(scale > 0, scale, jnp.inf)
        return Answer(z, _stopped(triangle, basis, boundary))

    return on_rows(singular_basis, answer, reads)


def _stopped(triangle: Triangle, basis: Singular, boundary: jax.Array) -> jax.Array:
    """The :class:`Stop` of a step."""
    deficient = ~jnp.all(basis.s > 0) | (triangle.span is not None)
    stopped = jnp.where(deficient, Stop.SINGULAR.value, Stop.SOLVED.value)
    return jnp.where(boundary, Stop.BOUNDARY.value, stopped)


def _quotient(c: jax.Array, w: jax.Array) -> jax.Array:
    """``c/w``; zero where ``w`` is zero."""
    return jnp.where(w == 0, 0, c / jnp.where(w == 0, 1, w))


def svd() -> Solver:
    """``min_d ½‖R d + r‖² + ½ λ ‖D d‖²`` by singular values; the shortest of all solutions.

    λ may be 0, as in plain Gauss-Newton. It costs a few times as much as
    :func:`secondorder.solvers.qr`. A rank-deficient ``R`` is reported as ``Stop.SINGULAR``.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.svd(), so.trust.fixed())
    """
    return _in_singular_basis(
        lambda s, c, damping: (-_quotient(c, s**2 + damping), False), "damping"
    )


def svd_region() -> Solver:
    """``min_d ½‖R d + r‖²`` over ``‖D d‖ ≤ Δ``, Δ met within 10 % (Moré 1978).

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.svd_region(), so.trust.radius())
    """

    return on_rows(singular_basis, in_region, "radius")


def in_region(triangle: Triangle, basis: Singular, delta: jax.Array) -> Answer:
    """The step of :func:`svd_region`."""
    s, vt, c = basis
    largest = jnp.max(s, initial=0)
    unit = jnp.where(largest > 0, largest, 1)
    w, c = (s / unit) ** 2, c / unit**2

    def refine(carry):
        lam, z, count = carry
        length = jnp.linalg.norm(z)
        slope = jnp.sum(_quotient((z / length) ** 2, w + lam))
        lam = jnp.maximum(lam + (length - delta) / (delta * slope), 0)
        return lam, -_quotient(c, w + lam), count + 1

    def far(carry):
        lam, z, count = carry
        excess = jnp.linalg.norm(z) - delta
        outside = (excess > CLOSE * delta) | ((excess < -CLOSE * delta) & (lam > 0))
        return outside & (count < MAX_ITERATIONS)

    start = jnp.zeros((), w.dtype), -_quotient(c, w), jnp.zeros((), jnp.int32)
    lam, z, _ = jax.lax.while_loop(far, refine, start)

    def again(v):
        part = jnp.where(s > 0, jnp.matmul(vt, v, precision=HIGHEST) / unit**2, 0)
        return -jnp.matmul(vt.T, _quotient(part, w + lam), precision=HIGHEST)

    step = jnp.matmul(vt.T, z, precision=HIGHEST)
    return Answer(step, _stopped(triangle, basis, lam > 0), again)


def dogleg() -> Solver:
    """Powell's path from the Cauchy point to the Gauss-Newton step, cut at ``‖D d‖ = Δ``.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.dogleg(), so.trust.radius())

    Source: Powell (1970); Nocedal and Wright (2006), equation 4.16.
    """

    def solve(s, c, delta):
        peak = jnp.max(jnp.abs(c), initial=0)
        unit = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
        c, delta = c / unit, delta / unit  # squares of a tiny gradient underflow
        newton = -_quotient(c, s**2)
        bend = jnp.sum((s * c) ** 2)
        cauchy = -c * jnp.sum(c**2) / jnp.where(bend > 0, bend, 1)
        first, full = jnp.linalg.norm(cauchy), jnp.linalg.norm(newton)
        # From the Cauchy point on: ‖cauchy + τ (newton − cauchy)‖ = Δ
        leg = newton - cauchy
        a, b, gap = jnp.sum(leg**2), jnp.dot(cauchy, leg), first**2 - delta**2
        root = jnp.sqrt(jnp.maximum(b**2 - a * gap, 0))
        tau = jnp.where(b > 0, -gap / (b + root), (root - b) / jnp.where(a > 0, a, 1))
        path = cauchy + jnp.clip(tau, 0, 1) * leg
        short = cauchy * delta / jnp.where(first > 0, first, 1)
        inside = full <= delta
        z = jnp.where(inside, newton, jnp.where(first >= delta, short, path))
        return unit * z, ~inside

    return _in_singular_basis(solve, "radius")
