"""Solver of ``(RᵀR + λ I) d = −g`` in the smaller of parameter space and sample space.

With m rows and n parameters, the residual ``r`` and the remaining gradient ``e = g − Rᵀ r``,

    d = −(RᵀR + λ I)⁻¹ (Rᵀ r + e)                         n × n, for n ≤ m
      = −Rᵀ (R Rᵀ + λ I)⁻¹ (r − R e / λ) − e / λ          m × m, for m < n

For least squares ``e`` is zero, and nothing is divided by λ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.linalg import _lapack as lapack
from secondorder.operators._base import Function, Operator
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._rows import AnyRows
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver, is_on
from secondorder.step import Again, Report, Stop, make_step
from secondorder.tree import Params
from secondorder.tree._types import Count

PROBES = 8  # vectors of random signs to estimate the trace of an implicit Gram


class Last(NamedTuple):
    """The last step taken, its λ, and the memory of an inner solver."""

    step: Params
    damping: jax.Array
    inner: Any = ()


class Gram(NamedTuple):
    """Factors of ``K``, the Gram of the rows in the smaller space.

    Attributes:
      factors: the matrix, or the factors of the inner solver.
      rows: ``R`` if it is formed in one piece, else ``None``.
      trace: ``tr K`` for an inner solver with a relative λ, else ``None``.
    """

    factors: Any
    rows: jax.Array | None = None
    trace: jax.Array | None = None


class System(NamedTuple):
    """``K + λ I``.

    Attributes:
      solve: ``b ↦ (K + λ I)⁺ b``, for any number of right-hand sides.
      damping: λ in the units of K.
      report: ``() -> (stopped, iterations, products, inner memory)``; the counts are sums over all
        solves.
    """

    solve: Callable[[jax.Array], jax.Array]
    damping: jax.Array
    report: Callable[[], tuple[jax.Array, Count, Count, Any]]


@settings.checked()
def sample_space(
    momentum: tree.Real = 0.0, relative: bool = False, solver: Solver | None = None
) -> Solver:
    """``d = argmin g·d + ½ ‖R d‖² + ½ λ ‖d − μ d₋‖²``, ``d₋`` the last step, by a Gram of the rows.

    The Gram is ``RᵀR`` or ``R Rᵀ``, whichever is smaller; the report's ``dimension`` is its size.
    Eigenvalues at rounding level, such as those of repeated samples, count as zero unless λ exceeds
    rounding (``Stop.SINGULAR``); the step is then the shortest solution. For a non-convex loss, the
    rows come from the positive part of its curvature, and a step along negative curvature is
    flagged (``Stop.NEGATIVE_CURVATURE``). The rows of a chunked objective are formed a chunk at a
    time.

    The Gram of the samples comes from the rows, or under ``curvature.ntk()`` from layer statistics
    without the rows. With a ``solver`` no Gram is formed: a product is a backward and a forward
    pass, and the memory is vectors as long as the outputs of the batch.

    Momentum is that of SPRING: with ``p = μ d₋``, ``d = p + argmin ‖R ψ + r + R p‖² + λ‖ψ‖²``. It
    is left out if the step would go uphill. After a rise of λ, as by rejections, μ is multiplied by
    the square of the ratio old λ / new λ, so that a strongly damped step descends.

    Args:
      momentum: 0 ≤ μ < 1.
      relative: True for λ as a fraction of the trace of the Gram, at least at rounding level; False
        for λ in the units of the curvature. With a ``solver`` the trace is estimated with eight
        vectors of random signs, the same at every step.
      solver: solver of the system in the smaller space, by products, for batches with a Gram too
        large for memory: ``cg(200, preconditioner=nystrom(50))``. It needs a damping, and no
        vectors in its memory.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.
      ValueError: a ``solver`` without a damping, or with vectors in its memory (a warm start, a
        preconditioner for several steps): their length depends on the batch.

    Example:
      >>> import secondorder as so
      >>> exact = so.solvers.sample_space()
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), exact, so.trust.damping())
      >>> inner = so.solvers.cg(200, preconditioner=so.solvers.nystrom(50))
      >>> large = so.solvers.sample_space(solver=inner)

    Source: Goldshlager, Abrahamsen and Lin (2024) for the momentum.
    """
    if solver is not None:
        _check_inner(solver)

    def init(params: Params) -> Last:
        zero = jnp.zeros((), tree.dtype(params))
        inner = () if solver is None else solver.init(zero[None])
        return Last(tree.accumulator(tree.zeros_like(params)), zero, inner)

    def prepare(quadratic: Quadratic, last: Last):
        return _prepare(quadratic, last, solver, relative)

    def solve(quadratic: Quadratic, gram: Gram, last: Last, damping: jax.Array):
        op, grad = quadratic.curvature, quadratic.grad
        rows = op.rows(solver is None, gram.rows)
        g, r = ravel(grad), rows.residual
        level = damping.astype(g.dtype)
        if solver is None:
            system = _factorised(gram.factors, level, relative)
        else:
            system = _iterated(rows, level, solver, gram, last.inner)
        solution = functools.partial(_solve, rows, system)
        rest = _unexplained(g, rows.mvt(r))
        step, carried = -solution(r, rest), jnp.zeros_like(g)
        if is_on(momentum):
            carried = _carried(last, momentum, damping).astype(g.dtype)
            more = carried - solution(rows.mv(carried), jnp.zeros_like(g))
            downhill = jnp.dot(g, step + more) < 0
            step, carried = step + jnp.where(downhill, more, 0), jnp.where(downhill, carried, 0)
        change = rows.mv(step)
        predicted = jnp.dot(change, r + 0.5 * change) + jnp.dot(rest, step)
        own = lambda x: tree.cast(unravel(x, grad), grad)
        direction = own(step)

        def again(u: jax.Array) -> tuple[Params, Count, Count]:
            _, iterations, products, _ = system.report()
            x = own(-solution(u, jnp.zeros_like(g)))
            _, later, paid, _ = system.report()
            return x, later - iterations, paid - products

        stopped, iterations, products, inner = system.report()
        outcome = make_step(
            direction,
            predicted,
            Report(
                iterations=iterations,
                products=products,
                residual=_error(rows, system.damping * (step - carried) + g, change, g),
                dimension=min(rows.shape),
                stopped=_why(op, direction, change, predicted, stopped),
            ),
            candidates=Again(again),
        )
        return outcome, Last(direction, damping, inner)

    remember = lambda last, taken: last._replace(step=taken)
    return Solver(init, solve, prepare, remember, takes_jacobian=solver is None)


def _prepare(
    quadratic: Quadratic, last: Last, solver: Solver | None, relative: bool
) -> tuple[Gram, Last, Cost]:
    """The Gram at a point, formed or implicit, and its cost."""
    rows = quadratic.curvature.rows(formed=solver is None)
    if solver is None:
        m, n = rows.shape
        gram = rows.parameter_gram() if n <= m else rows.sample_gram()
        return Gram(gram, rows.matrix), last, Cost(rows.passes, int(rows.formed))
    dtype = tree.dtype(quadratic.grad)
    factors, inner, cost = solver.prepare(_products(rows, dtype), last.inner)
    gram = Gram(factors)
    if relative:
        gram = gram._replace(trace=_trace(rows, dtype))
        cost = cost._replace(products=cost.products + PROBES // 2)  # half a product per probe
    return gram, last._replace(inner=inner), cost


def _check_inner(solver: Solver) -> None:
    if solver.reads != "damping":
        raise ValueError(
            "sample_space needs a solver that reads a damping, but this one reads a "
            f"{solver.reads}."
        )
    vector = lambda size: jax.ShapeDtypeStruct((size,), jnp.float32)
    one, two = (jax.eval_shape(solver.init, vector(size)) for size in (1, 2))
    if jax.tree.leaves(one) != jax.tree.leaves(two):
        raise ValueError(
            "sample_space needs a solver that keeps no vectors, since their length is that of the "
            "batch's outputs. Pass cg(warm_start=0) (the default), and "
            "nystrom(rank, refresh_every=1)."
        )


def _error(rows: AnyRows, others: jax.Array, change: jax.Array, g: jax.Array) -> jax.Array | float:
    """``‖Rᵀ(R d) + λ (d − p) + g‖ / ‖g‖`` for a step without formed rows; else infinity."""
    if rows.formed:
        return jnp.inf
    size = jnp.linalg.norm(g)
    return jnp.linalg.norm(rows.mvt(change) + others) / jnp.where(size > 0, size, 1)


def _carried(last: Last, momentum: tree.Real, damping: jax.Array) -> jax.Array:
    """``μ d₋``, reduced after a rise of λ."""
    fade = jnp.where(last.damping < damping, last.damping / damping, 1) ** 2
    return momentum * fade * ravel(last.step)


def _why(
    op: Operator, direction: Params, change: jax.Array, predicted: jax.Array, stopped: jax.Array
) -> jax.Array:
    repaired = jnp.sum(change**2) - op.gram(direction)[0, 0].astype(change.dtype)
    met = repaired > jnp.sqrt(jnp.finfo(change.dtype).eps) * jnp.abs(predicted)
    stopped = jnp.where(met, Stop.NEGATIVE_CURVATURE.value, stopped)
    sound = tree.all_finite((direction, predicted))
    return jnp.where(sound, stopped, Stop.NONFINITE.value)


def _unexplained(g: jax.Array, explained: jax.Array) -> jax.Array:
    """``e = g − Rᵀ r``, set to zero at rounding level, because it may be divided by λ."""
    rest = g - explained
    size = jnp.linalg.norm(g) + jnp.linalg.norm(explained)
    return jnp.where(jnp.linalg.norm(rest) <= 1e2 * jnp.finfo(g.dtype).eps * size, 0, rest)


def _solve(rows: AnyRows, system: System, u: jax.Array, e: jax.Array) -> jax.Array:
    """``(RᵀR + λ I)⁺ (Rᵀ u + e)``."""
    m, n = rows.shape
    if n <= m:
        return system.solve(rows.mvt(u) + e)
    damping = system.damping
    part = e / jnp.where(damping > 0, damping, jnp.inf)
    seen = jax.lax.cond(jnp.any(e != 0), lambda: rows.mv(part), lambda: jnp.zeros_like(u))
    return rows.mvt(system.solve(u - seen)) + part


def _level(damping: jax.Array, trace: jax.Array | None) -> jax.Array:
    """λ in the units of the Gram; a relative λ is at least ε of the trace.

    The rounding of a Gram is at most about ε of its trace. A floor of ε times the number of rows
    could reach a thousandth of the trace in float32, and would damp the solution away.
    """
    if trace is None:
        return damping
    return jnp.maximum(damping, jnp.finfo(damping.dtype).eps) * trace


def _factorised(gram: jax.Array, damping: jax.Array, relative: bool) -> System:
    damping = _level(damping.astype(gram.dtype), jnp.trace(gram) if relative else None)
    solve, singular = _semidefinite(gram, damping)
    stopped = jnp.where(singular, Stop.SINGULAR.value, Stop.SOLVED.value)
    return System(solve, damping, lambda: (stopped, 1, 0, ()))


def _products(rows: AnyRows, dtype: jnp.dtype) -> Quadratic:
    """A quadratic with zero gradient and the implicit Gram as curvature."""
    m, n = rows.shape
    both = (lambda v: rows.mvt(rows.mv(v))) if n <= m else (lambda u: rows.mv(rows.mvt(u)))
    zero = jnp.zeros(min(m, n), dtype)
    return Quadratic(zero, Function(both, zero))


def _iterated(rows: AnyRows, damping: jax.Array, solver: Solver, gram: Gram, memory: Any) -> System:
    """The system of an implicit Gram; all right-hand sides share one preparation."""
    damping = _level(damping, gram.trace)
    model, steps, memories = _products(rows, damping.dtype), [], []

    def solve(b: jax.Array) -> jax.Array:
        step, kept = solver.solve(model._replace(grad=-b), gram.factors, memory, damping)
        steps.append(step)
        memories.append(kept)
        return step.direction

    def report() -> tuple[jax.Array, Count, Count, Any]:
        reports = [step.report for step in steps]
        total = lambda name: sum(getattr(report, name) for report in reports)
        return reports[0].stopped, total("iterations"), total("products"), memories[0]

    return System(solve, damping, report)


def _trace(rows: AnyRows, dtype: jnp.dtype) -> jax.Array:
    """``tr R Rᵀ = E ‖Rᵀ s‖²``, estimated over vectors s of random signs."""
    keys = jax.random.split(jax.random.key(0), PROBES)
    signs = lambda key: jax.random.rademacher(key, rows.shape[:1], dtype)
    return jnp.mean(jax.lax.map(lambda key: jnp.sum(rows.mvt(signs(key)) ** 2), keys))


def _semidefinite(
    gram: jax.Array, damping: jax.Array
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """``b ↦ (K + λ I)⁺ b``: by Cholesky; if a pivot is at rounding level, by eigenvalues.

    The rounding level is ε times the number of rows, as for the rank of a matrix. In exact
    arithmetic every squared pivot of ``K + λ I`` is at least λ, so if λ is more than a few ε,
    squared pivots above λ/2 are safe too.
    """
    eps, largest = jnp.finfo(gram.dtype).eps, jnp.max(jnp.diag(gram), initial=0)
    floor = gram.shape[0] * eps
    lifted = damping > 4 * eps * largest
    least = jnp.where(lifted, jnp.minimum(0.5 * damping, floor * largest), floor * largest)
    lower = lapack.cholesky(gram + damping * jnp.eye(gram.shape[0], dtype=gram.dtype))
    # A comparison with NaN is false, so a failed factorisation is not safe.
    safe = jnp.all(jnp.diag(lower) ** 2 > least)
    finite = jnp.all(jnp.isfinite(gram))

    def by_eigenvalues() -> tuple[jax.Array, jax.Array]:
        # LAPACK may hang on a matrix with NaN; vmap runs both branches.
        values, vectors = lapack.eigh(jnp.where(finite & ~safe, gram, 0))
        kept = values > floor * jnp.max(values, initial=0)
        weights = jnp.where(kept, 1 / jnp.where(kept, values + damping, 1), 0)
        return vectors, tree.nan_unless(finite, weights)

    vectors, weights = jax.lax.cond(safe, lambda: (lower, jnp.diag(gram)), by_eigenvalues)

    def spectral(b: jax.Array) -> jax.Array:
        product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        return product(vectors, weights * product(vectors.T, b))

    solve = lambda b: jax.lax.cond(
        safe, lambda: lapack.with_cholesky(vectors, b), lambda: spectral(b)
    )
    return solve, ~safe
