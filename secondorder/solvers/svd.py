"""Least squares in the singular basis of the Jacobian: undamped, in a region, along a dogleg.

Singular values answer for every scalar at once, so a rejected step costs O(n²). Those
below ``k ε`` of the largest count as zero and their directions get no step, so of
many solutions it is the shortest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder.solvers import secular
from secondorder.solvers.base import Solver, Stop
from secondorder.solvers.rows import HIGHEST, Answer, Triangle, on_rows


class Singular(NamedTuple):
    """``U`` in its singular basis.

    Attributes:
      s: singular values in *ascending* order, those below rounding set to zero.
      vt: the right vectors as rows, in that order.
      c: the gradient's coefficients, of ``Uᵀq + rest``; zero where s is.
    """

    s: jax.Array
    vt: jax.Array
    c: jax.Array


def _factorise(triangle: Triangle, *ignored: Any) -> Singular:
    del ignored
    # LAPACK may not return from a matrix with NaN; a NaN in s marks the failure instead.
    upper, q, rest = triangle[:3]
    sound = jnp.all(jnp.isfinite(upper)) & jnp.all(jnp.isfinite(q))
    u, s, vt = jnp.linalg.svd(jnp.where(sound, upper, 0))
    limit = s.size * jnp.finfo(s.dtype).eps * jnp.max(s, initial=0)
    kept = s > limit
    c = s * jnp.matmul(u.T, q, precision=HIGHEST)
    c = c + jnp.matmul(vt, rest, precision=HIGHEST)
    s, c = jnp.where(kept, s, 0), jnp.where(kept, c, 0)
    return Singular(jnp.where(sound, s, jnp.nan)[::-1], vt[::-1], c[::-1])


def _in_singular_basis(name: str, solve: Callable, reads: str) -> Solver:
    """A row solver from ``solve(s, c, scale) -> (coefficients, boundary)``."""

    def answer(triangle: Triangle, basis: Singular, scale: jax.Array) -> Answer:
        coefficients, boundary = solve(basis.s, basis.c, scale)
        deficient = ~jnp.all(basis.s > 0) | (triangle.span is not None)
        stopped = jnp.where(deficient, Stop.SINGULAR.value, Stop.SOLVED.value)
        stopped = jnp.where(boundary, Stop.BOUNDARY.value, stopped)
        z = jnp.matmul(basis.vt.T, coefficients, precision=HIGHEST)
        if reads == "damping":  # the rest off the kept directions, which damping alone answers
            kept = jnp.where((basis.s > 0)[:, None], basis.vt, 0)
            off = triangle.rest - kept.T @ (kept @ triangle.rest)
            z = z - off / jnp.where(scale > 0, scale, jnp.inf)
        return Answer(z, stopped, boundary)

    return on_rows(name, _factorise, answer, reads)


def _quotient(c: jax.Array, w: jax.Array) -> jax.Array:
    """``c/w``, zero where ``w`` is."""
    return jnp.where(w == 0, 0, c / jnp.where(w == 0, 1, w))


def svd() -> Solver:
    """``min_d ½‖R d + r‖² + ½ λ ‖D d‖²`` by singular values; of many solutions the shortest.

    λ may be 0: this is what plain Gauss-Newton needs. A few times the cost of
    :func:`secondorder.solvers.qr`. A rank-deficient ``R`` is reported as ``Stop.SINGULAR``.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.svd(), so.trust.fixed())
    """
    return _in_singular_basis(
        "svd", lambda s, c, damping: (-_quotient(c, s**2 + damping), False), "damping"
    )


def svd_region() -> Solver:
    """``min_d ½‖R d + r‖²`` over ``‖D d‖ ≤ Δ``, exactly (Moré 1978, with singular values).

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.svd_region(), so.trust.radius())
    """

    def solve(s, c, delta):
        found = secular.within_radius(s**2, c, delta, semidefinite=True)
        return found.z, ~found.interior

    return _in_singular_basis("svd_region", solve, "radius")


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
        c, delta = c / unit, delta / unit  # squares of a tiny gradient would underflow
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

    return _in_singular_basis("dogleg", solve, "radius")
