"""``(RᵀR + λ I) d = −g`` in the space of the parameters or of the samples, whichever is smaller.

With m rows and n parameters, ``r`` the residual and ``e = g − Rᵀ r`` what it leaves unexplained,

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
from jax.scipy.linalg import cho_solve

from secondorder import settings, tree
from secondorder.operators._base import Function, Operator
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._rows import AnyRows
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver, is_on
from secondorder.step import Again, Report, Stop, make_step
from secondorder.tree import Params

PROBES = 8  # random signs that estimate the trace of a Gram which is not formed


class Last(NamedTuple):
    """The last step taken, its λ, and the memory of an inner solver."""

    step: Params
    damping: jax.Array
    inner: Any = ()


class Gram(NamedTuple):
    """What is prepared of ``K``, a Gram of the rows in the smaller of the two spaces.

    Attributes:
      factors: the matrix, or what an inner solver has prepared of its products.
      rows: ``R``, where it is formed in one piece; else ``None``.
      trace: ``tr K`` for an inner solver, where λ is relative to it; else ``None``.
    """

    factors: Any
    rows: jax.Array | None = None
    trace: jax.Array | None = None


class System(NamedTuple):
    """``K + λ I``.

    Attributes:
      solve: ``b ↦ (K + λ I)⁺ b``, for any number of right-hand sides.
      damping: λ in the units of K.
      report: ``() -> (stopped, iterations, products, inner memory)`` of all solutions.
    """

    solve: Callable[[jax.Array], jax.Array]
    damping: jax.Array
    report: Callable[[], tuple[Any, Any, Any, Any]]


@settings.checked()
def sample_space(
    momentum: Any = 0.0, relative: bool = False, solver: Solver | None = None
) -> Solver:
    """``d = argmin g·d + ½ ‖R d‖² + ½ λ ‖d − μ d₋‖²``, ``d₋`` the last step, by a Gram of the rows.

    The Gram is ``RᵀR`` or ``R Rᵀ``, by shapes; the step's ``dimension`` says which. Its eigenvalues
    below rounding, as those of repeated samples, count as zero where λ does not lift them
    (``Stop.SINGULAR``): of many solutions the step is the shortest. Of a loss that is not convex,
    the upward part of its curvature makes the rows, and a step along which that matters is
    flagged (``Stop.NEGATIVE_CURVATURE``). The rows of a chunked objective live a chunk at a time.

    The Gram of the samples is made of the rows, or, under ``curvature.ntk()``, of layer
    statistics without them. With a ``solver`` there is no Gram at all: its products are a
    backward and a forward pass, and what is kept is as long as the batch has outputs.

    Momentum is SPRING's: with ``p = μ d₋``, ``d = p + argmin ‖R ψ + r + R p‖² + λ‖ψ‖²``. One that
    would turn the step uphill is left out; where λ has been raised since, as by rejections, it
    fades with the square of that, so that a strongly damped step descends.

    Args:
      momentum: 0 ≤ μ < 1.
      relative: whether λ is a part of the trace of the Gram, and never below rounding, or in the
        units of the curvature. With a ``solver`` the trace is estimated by eight random signs, the
        same ones at every step.
      solver: of the system in the smaller space, by products: for batches whose Gram is too large,
        ``cg(200, preconditioner=nystrom(50))``. One that reads a damping and keeps no vectors.

    Raises:
      TypeError: a curvature without rows, such as the Hessian.
      ValueError: a ``solver`` that reads no damping, or one that keeps vectors (a warm start, a
        preconditioner for several steps): how long they are depends on the batch.

    Example:
      >>> import secondorder as so
      >>> exact = so.solvers.sample_space()
      >>> tx = so.scale_by_curvature(so.exact(so.ggn), exact, so.trust.damping())
      >>> inner = so.solvers.cg(200, preconditioner=so.solvers.nystrom(50))
      >>> large = so.solvers.sample_space(solver=inner)

    Source: Goldshlager, Hu and Lin (2024) for the momentum.
    """
    if solver is not None:
        _check_inner(solver)

    def init(params: Params) -> Last:
        zero = jnp.zeros((), tree.dtype(params))
        inner = () if solver is None else solver.init(zero[None])
        return Last(tree.accumulator(tree.zeros_like(params)), zero, inner)

    def prepare(quadratic: Quadratic, last: Last):
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
            cost = cost._replace(products=cost.products + PROBES // 2)  # half a product each
        return gram, last._replace(inner=inner), cost

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

        def again(u: jax.Array) -> tuple[Params, Any, Any]:
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
    """``‖Rᵀ(R d) + λ (d − p) + g‖ / ‖g‖`` where no rows made the step, as a test of what did."""
    if rows.formed:
        return jnp.inf
    size = jnp.linalg.norm(g)
    return jnp.linalg.norm(rows.mvt(change) + others) / jnp.where(size > 0, size, 1)


def _carried(last: Last, momentum: Any, damping: jax.Array) -> jax.Array:
    """``μ d₋``, faded where λ has been raised."""
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
    """``e = g − Rᵀ r``, and exactly zero where that is rounding: it may be divided by λ."""
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
    """λ in the units of the Gram; where it is relative, not below ε of the trace.

    The rounding of a Gram is about ε of its trace at most. As many ε as it has rows, let alone
    columns, would be a thousandth of it in float32, and damp away what is to be solved.
    """
    if trace is None:
        return damping
    return jnp.maximum(damping, jnp.finfo(damping.dtype).eps) * trace


def _factorised(gram: jax.Array, damping: jax.Array, relative: bool) -> System:
    damping = _level(damping.astype(gram.dtype), jnp.trace(gram) if relative else None)
    solve, singular = _semidefinite(gram, damping)
    stopped = jnp.where(singular, Stop.SINGULAR.value, Stop.SOLVED.value)
    return System(solve, damping, lambda: (stopped, 1, 0, ()))


def _products(rows: AnyRows, dtype: Any) -> Quadratic:
    """A model, of gradient zero, whose curvature is the Gram by its products."""
    m, n = rows.shape
    both = (lambda v: rows.mvt(rows.mv(v))) if n <= m else (lambda u: rows.mv(rows.mvt(u)))
    zero = jnp.zeros(min(m, n), dtype)
    return Quadratic(zero, Function(both, zero))


def _iterated(rows: AnyRows, damping: jax.Array, solver: Solver, gram: Gram, memory: Any) -> System:
    """By products with the Gram, which is not formed; one preparation for all right-hand sides."""
    damping = _level(damping, gram.trace)
    model, steps, memories = _products(rows, damping.dtype), [], []

    def solve(b: jax.Array) -> jax.Array:
        step, kept = solver.solve(model._replace(grad=-b), gram.factors, memory, damping)
        steps.append(step)
        memories.append(kept)
        return step.direction

    def report() -> tuple[Any, Any, Any, Any]:
        reports = [step.report for step in steps]
        total = lambda name: sum(getattr(report, name) for report in reports)
        return reports[0].stopped, total("iterations"), total("products"), memories[0]

    return System(solve, damping, report)


def _trace(rows: AnyRows, dtype: Any) -> jax.Array:
    """``tr R Rᵀ = E ‖Rᵀ s‖²`` over random signs s."""
    keys = jax.random.split(jax.random.key(0), PROBES)
    signs = lambda key: jax.random.rademacher(key, rows.shape[:1], dtype)
    return jnp.mean(jax.lax.map(lambda key: jnp.sum(rows.mvt(signs(key)) ** 2), keys))


def _semidefinite(
    gram: jax.Array, damping: jax.Array
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """``b ↦ (K + λ I)⁺ b`` by Cholesky; where a pivot is rounding, by eigenvalues above rounding.

    As for the rank of a matrix, rounding is as many ε as it has rows. But without rounding every
    squared pivot of ``K + λ I`` is at least λ: where λ is more than a few ε, those above λ/2 are
    trusted, too.
    """
    eps, largest = jnp.finfo(gram.dtype).eps, jnp.max(jnp.diag(gram), initial=0)
    floor = gram.shape[0] * eps
    lifted = damping > 4 * eps * largest
    least = jnp.where(lifted, jnp.minimum(0.5 * damping, floor * largest), floor * largest)
    lower = jnp.linalg.cholesky(gram + damping * jnp.eye(gram.shape[0], dtype=gram.dtype))
    # NaN pivots compare false, so a factorisation that failed is not safe.
    safe = jnp.all(jnp.diag(lower) ** 2 > least)
    finite = jnp.all(jnp.isfinite(gram))

    def by_eigenvalues() -> tuple[jax.Array, jax.Array]:
        # LAPACK may not return from a matrix with NaN; nor, under vmap, where a branch is taken by
        # all, from two batches at once: reading `safe` puts this one after the other.
        values, vectors = jnp.linalg.eigh(jnp.where(finite & ~safe, gram, 0))
        kept = values > floor * jnp.max(values, initial=0)
        weights = jnp.where(kept, 1 / jnp.where(kept, values + damping, 1), 0)
        return vectors, tree.nan_unless(finite, weights)

    vectors, weights = jax.lax.cond(safe, lambda: (lower, jnp.diag(gram)), by_eigenvalues)

    def spectral(b: jax.Array) -> jax.Array:
        product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        return product(vectors, weights * product(vectors.T, b))

    solve = lambda b: jax.lax.cond(safe, lambda: cho_solve((vectors, True), b), lambda: spectral(b))
    return solve, ~safe
