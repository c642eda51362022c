"""Least squares on the Jacobian itself: orthogonal factorisations, never normal equations.

Squaring the Jacobian squares its condition number, and with it goes half of the digits. Here
``B = RᵀR`` is never formed: the step solves ``min ‖[R; √λ D] d + [r; 0]‖``, with ``D`` Moré's
scaling, the largest norm each column of ``R`` has had so far (Moré 1978, section 6), so rescaling a
parameter or the residuals rescales the step and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from secondorder import tree
from secondorder.operators.dense import ravel, unravel
from secondorder.operators.pullback import Pullback
from secondorder.quadratic import Quadratic
from secondorder.solvers.base import Solver, Step, Stop, make_step


def qr() -> Solver:
    """``min_d ½‖R d + r‖² + ½ λ ‖D d‖²`` by QR, for a curvature ``B = RᵀR`` with ``g = Rᵀ r``.

    ``R = Sᵀ J``, the Jacobian of the model under the root of the loss's curvature; ``r`` is the
    residual (for other losses than least squares: the vector with ``S r = ∇ℓ``). λ is relative: 1
    damps a column as strongly as its own norm; below the rounding level it is raised to it. A
    rank-deficient ``R`` is reported as ``Stop.SINGULAR``; undamped, :func:`svd` solves it better.
    With fewer rows than parameters the factorisation is of ``Rᵀ``. The state holds the running
    column norms, shaped like the parameters.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.qr(), so.trust.damping(1e-3))
    """

    def solve(a, r, rest, damping):
        weight = jnp.sqrt(jnp.maximum(damping, jnp.finfo(a.dtype).eps))
        return (_tall if a.shape[0] >= a.shape[1] else _wide)(a, r, rest, weight)

    return _on_rows("qr", solve)


def svd() -> Solver:
    """The problem of :func:`qr` by singular values; of many solutions the shortest.

    Singular values below ``max(k, n) ε`` of the largest count as zero and their directions get no
    step (``Stop.SINGULAR``), so λ may be 0: this is what plain Gauss-Newton needs. Several times
    the cost of :func:`qr`.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.svd(), so.trust.fixed())
    """

    def solve(a, r, rest, damping):
        u, s, vt = jnp.linalg.svd(a, full_matrices=False)
        limit = max(a.shape) * jnp.finfo(a.dtype).eps * jnp.max(s, initial=0)
        kept = s > limit
        filtered = jnp.where(kept, s**2, 0) + damping
        filtered = jnp.where(filtered > 0, filtered, jnp.inf)
        inside = vt @ rest
        y = -vt.T @ ((jnp.where(kept, s, 0) * (u.T @ r) + inside) / filtered)
        off = (rest - vt.T @ inside) / jnp.where(damping > 0, damping, jnp.inf)
        return y - off, ~jnp.all(kept)

    return _on_rows("svd", solve)


def _on_rows(name: str, solve: Callable) -> Solver:
    """A solver from ``solve(a, r, rest, λ) -> (y, singular)`` in Moré's scaled coordinates."""

    def init(params):
        return tree.accumulator(tree.zeros_like(params))

    def update(quadratic: Quadratic, state, damping: jax.Array) -> tuple[Step, tree.Params]:
        op, like = quadratic.curvature, quadratic.grad
        if not isinstance(op, Pullback):
            raise TypeError(
                f"The {name}() solver needs the rows of a Gauss-Newton or Fisher matrix, but the "
                f"curvature is a {type(op).__name__}. Use exact(ggn), or the direct() solver."
            )
        rows, g = op.factor(), ravel(like)
        norms = jnp.linalg.norm(rows, axis=0)
        running = jnp.maximum(ravel(state), norms)
        scaling = jnp.where(running > 0, running, 1)
        scaled = rows / scaling
        r, rest = _split_gradient(op.residual(), rows, g)

        y, singular = solve(scaled, r, rest / scaling, damping.astype(rows.dtype))
        change = jnp.matmul(scaled, y, precision=jax.lax.Precision.HIGHEST)
        step = y / scaling
        # Not g·d + ½ d·Bd: this form loses no digits when the residuals are nearly fitted.
        predicted = jnp.dot(change, r + 0.5 * change) + jnp.dot(rest, step)

        optimality = jnp.inf  # unknown without a residual
        if op.residual() is not None:
            optimality = _largest_cosine(g, norms, r, ravel(op.jacobian.params))
        stopped = jnp.where(singular, Stop.SINGULAR.value, Stop.SOLVED.value)
        stopped = jnp.where(jnp.all(jnp.isfinite(step)), stopped, Stop.NONFINITE.value)
        return make_step(
            tree.cast(unravel(step, like), like),
            predicted,
            length=jnp.linalg.norm(y),
            products=op.jacobian.passes,
            optimality=optimality,
            stopped=stopped,
        ), tree.cast(unravel(running, like), state)

    return Solver(init, update, measures=True)


def _largest_cosine(g, norms, r, x):
    """``maxⱼ |Rⱼ·r| / (‖Rⱼ‖ (‖r‖ + noise))``: MINPACK's first-order measure, free of every unit.

    The noise is ``10 √ε`` of what the parameters themselves contribute to the residuals,
    ``‖(‖Rⱼ‖ xⱼ)‖``. Where the residuals vanish at the solution the bare cosine stays of size one
    until it is rounding; against this, ``≤ √ε`` means that rounding the parameters moves r as far.
    """
    noise = 10 * jnp.sqrt(jnp.finfo(r.dtype).eps) * jnp.linalg.norm(norms * x)
    scale = jnp.linalg.norm(r) + noise
    return jnp.max(jnp.where(g == 0, 0, jnp.abs(g) / norms / scale), initial=0)


def _split_gradient(r, rows, g):
    """``g = Rᵀ r + rest``: the part the rows explain, and what a clipping or decay added before.

    A ``rest`` at the rounding level of ``Rᵀ r`` is rounding, and is set to zero: solving for it
    through ``(RᵀR)⁻¹`` would bring back the squared condition number that QR avoids.
    """
    if r is None:
        return jnp.zeros(rows.shape[0], rows.dtype), g
    high = jax.lax.Precision.HIGHEST
    rest = g - jnp.matmul(rows.T, r, precision=high)
    noise = (
        1e2 * jnp.finfo(rows.dtype).eps * jnp.matmul(jnp.abs(rows).T, jnp.abs(r), precision=high)
    )
    return r, jnp.where(jnp.abs(rest) <= noise, 0, rest)


def _tall(a, r, rest, weight):
    """``min ‖[a; w I] y + [r; 0]‖² / 2 + rest·y`` from the R-factor of ``[a r; w I 0]``."""
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
    return y, _is_singular(upper, m + n)


def _wide(a, r, rest, weight):
    """The same minimum from ``[aᵀ; w I] = Q U``: ``y = −Q₁ U⁻ᵀ r``, then the part for ``rest``."""
    m, n = a.shape
    q, upper = jnp.linalg.qr(jnp.concatenate([a.T, weight * jnp.eye(m, dtype=a.dtype)]))
    q1 = q[:n]
    y = -q1 @ solve_triangular(upper, r, trans=1)
    # (aᵀa + w² I)⁻¹ = (I − Q₁Q₁ᵀ)/w², the projection off the rows
    return y - (rest - q1 @ (q1.T @ rest)) / weight**2, _is_singular(upper, m + n)


def _is_singular(upper: jax.Array, size: int) -> jax.Array:
    """A pivot at the level that the floor of the damping alone would leave."""
    pivots = jnp.abs(jnp.diag(upper))
    limit = jnp.sqrt(4 * jnp.finfo(upper.dtype).eps)
    return jnp.min(pivots, initial=jnp.inf) <= limit * jnp.max(pivots, initial=0)
