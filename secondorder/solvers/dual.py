"""``(RᵀR + λ I) d = −g`` in the space of the parameters or of the samples, whichever is smaller.

With m rows and n parameters, ``r`` the residual and ``e = g − Rᵀ r`` what it leaves unexplained,

    d = −(RᵀR + λ I)⁻¹ (Rᵀ r + e)                                  n × n, for n ≤ m
      = −Rᵀ (R Rᵀ + λ I)⁻¹ r − (e − Rᵀ (R Rᵀ + λ I)⁻¹ R e) / λ     m × m, for m < n

For least squares ``e`` is zero, and nothing is divided by λ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from secondorder import tree
from secondorder.operators.base import Operator
from secondorder.operators.dense import ravel, unravel
from secondorder.operators.pullback import Pullback
from secondorder.operators.rows import ChunkedRows, Rows, rows_of
from secondorder.quadratic import Quadratic
from secondorder.solvers.base import Solver, Step, Stop, make_step
from secondorder.solvers.paths import path
from secondorder.solvers.rows import RowsState
from secondorder.tree import Params


class Last(NamedTuple):
    """The last step taken, and its λ."""

    step: Params
    damping: jax.Array


def dual(momentum: Any = 0.0, order: int = 1, relative: bool = False) -> Solver:
    """``d = argmin g·d + ½ ‖R d‖² + ½ λ ‖d − μ d₋‖²``, ``d₋`` the last step, by a Gram of the rows.

    The Gram is ``RᵀR`` or ``R Rᵀ``, by shapes; the step's ``dimension`` says which. Its eigenvalues
    below rounding, as those of repeated samples, count as zero where λ does not lift them
    (``Stop.SINGULAR``): of many solutions the step is the shortest. Of a loss that is not convex,
    the upward part of its curvature makes the rows, and a step along which that matters is
    flagged (``Stop.NEGATIVE_CURVATURE``). The rows of a chunked objective live a chunk at a time.

    Momentum is SPRING's: with ``p = μ d₋``, ``d = p + argmin ‖R ψ + r + R p‖² + λ‖ψ‖²``. One that
    would turn the step uphill is left out; where λ has been raised since, as by rejections, it
    fades with the square of that, so that a strongly damped step descends.

    Args:
      momentum: 0 ≤ μ < 1.
      order: of the path that a policy searches along, :mod:`secondorder.solvers.paths`; 1 for the
        step alone. Least-squares losses that are not chunked alone; others ignore it.
      relative: whether λ is a part of the trace of the Gram, and never below rounding, or in the
        units of the curvature.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), so.solvers.dual(), so.trust.damping())

    Source: Goldshlager, Hu and Lin (2024) for the momentum; Transtrum and Sethna (2012) for the
    acceleration.
    """

    def init(params: Params) -> RowsState:
        zero = jnp.zeros((), tree.dtype(params))
        return RowsState(Last(tree.accumulator(tree.zeros_like(params)), zero), None)

    def update(
        quadratic: Quadratic, state: RowsState, damping: jax.Array
    ) -> tuple[Step, RowsState]:
        op, grad = quadratic.curvature, quadratic.grad
        rows = rows_of(op)
        if rows is None:
            raise TypeError(
                "The dual() solver needs the rows of a Gauss-Newton or Fisher matrix, but the "
                f"curvature is a {type(op).__name__}. Use exact(ggn), or the direct() solver."
            )
        g, r = ravel(grad), rows.residual
        solve, singular = _solver(rows, damping.astype(g.dtype), relative)
        rest = _unexplained(g, rows.mvt(r))
        plain = -solve(r, rest)
        more = _carried(state.memory, momentum, damping).astype(g.dtype)
        more = more - solve(rows.mv(more), jnp.zeros_like(g))
        step = plain + jnp.where(jnp.dot(g, plain + more) < 0, more, 0)
        change = rows.mv(step)
        predicted = jnp.dot(change, r + 0.5 * change) + jnp.dot(rest, step)
        own = lambda x: tree.cast(unravel(x, grad), grad)
        terms = (step,)
        if isinstance(op, Pullback) and op.middle.least_squares:
            along = op.derivative_along
            terms = path(step, order, lambda t: -solve(along(*t), jnp.zeros_like(g)), own)
        terms = tuple(map(own, terms))
        outcome = make_step(
            terms[0],
            predicted,
            products=rows.passes,
            jacobians=1,
            dimension=min(rows.shape),
            stopped=_why(op, terms[0], change, predicted, singular),
            bends=terms[1:],
        )
        return outcome, RowsState(Last(terms[0], damping), None)

    def taken(state: RowsState, direction: Params) -> RowsState:
        return state._replace(memory=state.memory._replace(step=direction))

    return Solver(init, update, taken=taken)


def _carried(last: Last, momentum: Any, damping: jax.Array) -> jax.Array:
    """``μ d₋``, faded where λ has been raised."""
    fade = jnp.where(last.damping < damping, last.damping / damping, 1) ** 2
    return momentum * fade * ravel(last.step)


def _why(
    op: Operator, direction: Params, change: jax.Array, predicted: jax.Array, singular: jax.Array
) -> jax.Array:
    stopped = jnp.where(singular, Stop.SINGULAR.value, Stop.SOLVED.value)
    repaired = jnp.sum(change**2) - op.gram(direction)[0, 0].astype(change.dtype)
    met = repaired > jnp.sqrt(jnp.finfo(change.dtype).eps) * jnp.abs(predicted)
    stopped = jnp.where(met, Stop.NEGATIVE_CURVATURE.value, stopped)
    sound = tree.all_finite((direction, predicted))
    return jnp.where(sound, stopped, Stop.NONFINITE.value)


def _unexplained(g: jax.Array, explained: jax.Array) -> jax.Array:
    """``e = g − Rᵀ r``, and exactly zero where that is rounding: it may be divided by λ."""
    rest = g - explained
    size = jnp.linalg.norm(g) + jnp.linalg.norm(explained)
    return jnp.where(jnp.linalg.norm(rest) <= 1e2 * jnp.finfo(g.dtype).eps * size, 0, rest)


def _solver(
    rows: Rows | ChunkedRows, damping: jax.Array, relative: bool
) -> tuple[Callable, jax.Array]:
    """``(u, e) ↦ (RᵀR + λ I)⁺ (Rᵀ u + e)``, and whether eigenvalues are left out."""
    m, n = rows.shape
    gram = rows.parameter_gram() if n <= m else rows.sample_gram()
    if relative:
        damping = jnp.maximum(damping, max(m, n) * jnp.finfo(gram.dtype).eps) * jnp.trace(gram)
    solve, singular = _semidefinite(gram, damping, max(m, n))
    if n <= m:
        return lambda u, e: solve(rows.mvt(u) + e), singular

    def through_samples(u: jax.Array, e: jax.Array) -> jax.Array:
        seen = rows.mvt(solve(u))
        off = jax.lax.cond(
            jnp.any(e != 0), lambda: e - rows.mvt(solve(rows.mv(e))), lambda: jnp.zeros_like(e)
        )
        return seen + off / jnp.where(damping > 0, damping, jnp.inf)

    return through_samples, singular


def _semidefinite(
    gram: jax.Array, damping: jax.Array, size: int
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """``b ↦ (K + λ I)⁺ b`` by Cholesky; where a pivot is rounding, by eigenvalues above rounding.

    ``size`` is the larger of R's dimensions: as for the rank of a matrix, rounding is that many ε.
    """
    floor = size * jnp.finfo(gram.dtype).eps
    lower = jnp.linalg.cholesky(gram + damping * jnp.eye(gram.shape[0], dtype=gram.dtype))
    # NaN pivots compare false, so a factorisation that failed is not safe.
    safe = jnp.all(jnp.diag(lower) ** 2 > floor * jnp.max(jnp.diag(gram), initial=0))
    finite = jnp.all(jnp.isfinite(gram))

    def by_eigenvalues() -> tuple[jax.Array, jax.Array]:
        # LAPACK may not return from a matrix with NaN.
        values, vectors = jnp.linalg.eigh(jnp.where(finite, gram, 0))
        kept = values > floor * jnp.max(values, initial=0)
        weights = jnp.where(kept, 1 / jnp.where(kept, values + damping, 1), 0)
        return vectors, jnp.where(finite, weights, jnp.nan)

    vectors, weights = jax.lax.cond(safe, lambda: (lower, jnp.diag(gram)), by_eigenvalues)

    def spectral(b: jax.Array) -> jax.Array:
        product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        return product(vectors, weights * product(vectors.T, b))

    solve = lambda b: jax.lax.cond(safe, lambda: cho_solve((vectors, True), b), lambda: spectral(b))
    return solve, ~safe
