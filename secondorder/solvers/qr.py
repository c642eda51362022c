"""Least squares on the Jacobian itself: orthogonal factorisation, never normal equations.

Squaring the Jacobian squares its condition number, and with it goes half of the digits. Here
``B = RᵀR`` is never formed: the step solves ``min ‖[R; √λ D] d + [r; 0]‖``, with ``D`` Moré's
scaling, the largest norm each column of ``R`` has had so far (Moré 1978, section 6), so rescaling a
parameter or the residuals rescales the step and changes nothing else.
"""

from __future__ import annotations

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
    damps a column as strongly as its own norm. λ below the rounding level is raised to it, so a
    rank-deficient Jacobian gives a finite, nearly shortest step, reported as ``Stop.SINGULAR``.
    With fewer rows than parameters the factorisation is of ``Rᵀ`` instead. The state holds the
    running column norms, shaped like the parameters.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.qr(), so.trust.damping(1e-3))
    """

    def init(params):
        return tree.accumulator(tree.zeros_like(params))

    def update(quadratic: Quadratic, state, damping: jax.Array) -> tuple[Step, tree.Params]:
        op, like = quadratic.curvature, quadratic.grad
        if not isinstance(op, Pullback):
            raise TypeError(
                f"The qr() solver needs the rows of a Gauss-Newton or Fisher matrix, but the "
                f"curvature is a {type(op).__name__}. Use exact(ggn), or the direct() solver."
            )
        rows, g = op.factor(), ravel(like)
        norms = jnp.linalg.norm(rows, axis=0)
        running = jnp.maximum(ravel(state), norms)
        scaling = jnp.where(running > 0, running, 1)
        scaled = rows / scaling
        r, rest = _split_gradient(op.residual(), rows, g)

        eps = jnp.finfo(rows.dtype).eps
        weight = jnp.sqrt(jnp.maximum(damping.astype(rows.dtype), eps))
        solve = _tall if rows.shape[0] >= rows.shape[1] else _wide
        y, singular = solve(scaled, r, rest / scaling, weight)
        change = jnp.matmul(scaled, y, precision=jax.lax.Precision.HIGHEST)
        step = y / scaling
        # Not g·d + ½ d·Bd: this form loses no digits when the residuals are nearly fitted.
        predicted = jnp.dot(change, r + 0.5 * change) + jnp.dot(rest, step)
        length = jnp.linalg.norm(y)

        cosines = jnp.abs(g) / (jnp.where(norms > 0, norms, jnp.inf) * _nonzero(jnp.linalg.norm(r)))
        stopped = jnp.where(singular, Stop.SINGULAR.value, Stop.SOLVED.value)
        stopped = jnp.where(jnp.all(jnp.isfinite(step)), stopped, Stop.NONFINITE.value)
        return make_step(
            tree.cast(unravel(step, like), like),
            predicted,
            length=length,
            products=op.jacobian.passes,
            optimality=jnp.max(cosines, initial=0) if op.residual() is not None else jnp.inf,
            stopped=stopped,
        ), unravel(running.astype(tree.dtype(state)), state)

    return Solver(init=init, update=update)


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1)


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
