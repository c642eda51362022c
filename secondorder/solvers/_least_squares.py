"""Common part of the least-squares solvers: scaled rows ``R`` with ``B = RᵀR``, in triangular form.

``RᵀR`` is never formed: it squares the condition number of the Jacobian and loses half of the
digits. ``D`` has the largest norm so far of each column of ``R`` (Moré 1978, section 6), ``y = D
d`` and ``A = R D⁻¹``, so rescaling a parameter or the residuals only rescales the step.

A column at rounding level belongs to a parameter without any effect yet. By its norm alone, it
would look like a parameter in large units, and the step would move it to 1e15. Such a column
therefore counts as zero. For a trust region, ``D`` is at least a tenth of the smaller of ``‖r‖``
and the outputs ``‖R x‖`` (summed by columns), divided by ``|x|``, so a parameter grows at most a
hundredfold in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg import _lapack as lapack
from secondorder.linalg._batched import triangular
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._gauss_newton import GaussNewton
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver, parameter_sizes
from secondorder.step import Again, Report, Stop, make_step
from secondorder.tree import Params

HIGHEST = jax.lax.Precision.HIGHEST
REMOVED = 0.1  # cosine beyond which more than 1 % of the objective can be removed
SINGULAR = 3e-9  # cosine with single columns of a singular Jacobian: √ε/5 of float64
LEAST = 0.1  # least effect of a change of a parameter by its own size, relative to the residual


class Span(NamedTuple):
    """The row space, for fewer rows than parameters.

    Attributes:
      basis: ``(n, k)``, an orthonormal basis of the row space.
      outside: the part of the gradient outside it, ``(n,)``, where damping is the only curvature.
    """

    basis: jax.Array
    outside: jax.Array


class Triangle(NamedTuple):
    """The local least-squares problem after one orthogonal factorisation.

    ``½‖A y + r‖² + rest·y = ½‖U z + q‖² + rest·z + constant`` with ``y = basis z``; its size does
    not depend on the number of rows.

    Attributes:
      upper: ``U``, ``(k, k)``, upper triangular, ``k`` the smaller of rows and parameters.
      q: the rotated residual, ``(k,)``; zero if the curvature has no residual.
      rest: the gradient minus ``Uᵀ q``, ``(k,)``: a change by clipping or decay, or the whole
        gradient without a residual.
      span: the :class:`Span` for fewer rows than parameters; else ``None``, and ``y = z``.
    """

    upper: jax.Array
    q: jax.Array
    rest: jax.Array
    span: Span | None


class Point(NamedTuple):
    """Factors of a least-squares solver at a point.

    Attributes:
      triangle: the :class:`Triangle`.
      factors: factors of the solver itself.
      scaling: the diagonal of ``D``, ``(n,)``.
      optimality: the first-order measure of the point.
      lost: whether a parameter that had an effect has none here.
      rounding: rounding error of the objective: a residual has that of its outputs.
      lengths: ``scaling``, or a column's norm where that is rounding.
    """

    triangle: Triangle
    factors: Any
    scaling: jax.Array
    optimality: jax.Array
    lost: jax.Array
    rounding: jax.Array
    lengths: jax.Array


class Memory(NamedTuple):
    """Memory of a least-squares solver.

    Attributes:
      norms: the largest norm so far of each column, shaped like the parameters.
      size: size of the outputs: the larger of the largest residual so far, and the contribution of
        the parameters at the start.
    """

    norms: Params
    size: jax.Array


class Answer(NamedTuple):
    """Result of a least-squares solver.

    Attributes:
      z: the step.
      stopped: a :class:`Stop`.
      again: ``v ↦ argmin ½‖U a‖² + ½ λ‖a‖² + v·a`` with the λ of the step; ``None`` without it.
      bent: ``½ z·(B − UᵀU) z``, for a model with more curvature than the rows.
      saddle: whether there is negative curvature, so that no angle proves a minimum.
    """

    z: jax.Array
    stopped: jax.Array
    again: Callable[[jax.Array], jax.Array] | None = None
    bent: tree.Real = 0.0
    saddle: bool | jax.Array = False


def on_rows(
    factorise: Callable,
    solve: Callable,
    reads: str = "damping",
) -> Solver:
    """A solver in Moré's scaled coordinates.

    Args:
      factorise: ``(Triangle, Operator, scaling, optimality) -> factors``, once per point.
      solve: ``(Triangle, factors, scale) -> Answer``, once per trial.
      reads: as in :class:`Solver`.
    """

    def prepare(quadratic: Quadratic, memory: Memory):
        return _point(factorise, reads, quadratic, memory)

    def step(quadratic: Quadratic, point: Point, memory: Memory, scale: jax.Array):
        triangle = point.triangle
        scale = scale.astype(triangle.q.dtype)
        answer = solve(triangle, point.factors, scale)
        y = z = answer.z
        change = jnp.matmul(triangle.upper, z, precision=HIGHEST)
        # Not g·d + ½ d·Bd: this form loses no digits near a perfect fit.
        predicted = jnp.dot(change, triangle.q + 0.5 * change) + jnp.dot(triangle.rest, z)
        predicted = predicted + answer.bent
        if triangle.span is not None:
            basis, outside = triangle.span
            y = jnp.matmul(basis, z, precision=HIGHEST)
            if reads == "damping":
                y = y - outside / jnp.where(scale > 0, scale, jnp.inf)
                predicted = predicted + jnp.dot(outside, y)
        sound = jnp.all(jnp.isfinite(y)) & jnp.isfinite(predicted)
        own = lambda y: tree.cast(unravel(y / point.scaling, quadratic.grad), quadratic.grad)

        def again(u: jax.Array) -> tuple[tree.Params, int, int]:
            push = quadratic.curvature.rows(formed=False).mvt(u) / point.scaling
            if triangle.span is None:
                return own(answer.again(push)), 0, 0
            x = answer.again(jnp.matmul(triangle.span.basis.T, push, precision=HIGHEST))
            return own(jnp.matmul(triangle.span.basis, x, precision=HIGHEST)), 0, 0

        return make_step(
            own(y),
            predicted,
            Report(
                optimality=jnp.where(answer.saddle, 1, point.optimality),
                stopped=jnp.where(sound, answer.stopped, Stop.NONFINITE.value),
                lost=point.lost,
            ),
            length=jnp.linalg.norm(y),
            rounding=point.rounding,
            candidates=None if answer.again is None else Again(again),
        ), memory

    def init(params: tree.Params) -> Memory:
        zeros = tree.accumulator(tree.zeros_like(params))
        return Memory(zeros, jnp.zeros((), tree.dtype(zeros)))

    def measure(point: Point, memory: Memory, direction: tree.Params) -> jax.Array:
        del memory
        return jnp.linalg.norm(point.lengths * ravel(direction))

    def sizes(point: Point, params: tree.Params, grad: tree.Params) -> tree.Params:
        return parameter_sizes(params, grad, point.scaling)

    kind = {"reads": reads, "measures": True, "takes_jacobian": True}
    return Solver(init, step, prepare, measure=measure, sizes=sizes, **kind)


def no_factors(*ignored: object) -> tuple:
    """The factors of a solver that factorises at every trial."""
    del ignored
    return ()


def _point(
    factorise: Callable, reads: str, quadratic: Quadratic, memory: Memory
) -> tuple[Point, Memory, Cost]:
    op: GaussNewton = quadratic.curvature.gauss_newton()
    g = ravel(quadratic.grad)
    matrix, residual = op.factor(), op.residual()
    r = jnp.zeros(matrix.shape[0], matrix.dtype) if residual is None else residual
    x = ravel(op.jacobian.params).astype(matrix.dtype)
    norms, length = _lengths(matrix), jnp.linalg.norm(r)
    largest = jnp.maximum(ravel(memory.norms), norms)
    shares = norms * jnp.abs(x)
    whole = jnp.linalg.norm(shares)
    first = jnp.where(memory.size > 0, 0, whole)
    size = jnp.maximum(memory.size, jnp.maximum(first, length)).astype(matrix.dtype)
    least, rounding = _least(norms, x, length, jnp.minimum(whole, size), reads)
    scaling = jnp.maximum(largest, least)
    scaling = jnp.where(scaling > 0, scaling, 1)
    # A column of rounding leaves its parameter where it is.
    matrix, g = jnp.where(rounding[None], 0, matrix), jnp.where(rounding, 0, g)
    triangle = _reduce(matrix / scaling[None], r, _unexplained(g, matrix, r) / scaling)
    eps = jnp.finfo(matrix.dtype).eps
    # A share above 1/√ε of the outputs is clipped, since its parameter ran off.
    contributions = jnp.linalg.norm(jnp.minimum(shares, size / jnp.sqrt(eps)))
    error = eps * contributions
    optimality = jnp.full((), jnp.inf, matrix.dtype)  # angles to r measure only least squares
    if op.middle.least_squares and quadratic.own:
        optimality = _optimality(triangle, g / jnp.where(g == 0, 1, norms), r, contributions)
    free = ravel(quadratic.held) == 0 if quadratic.held is not None else jnp.ones_like(rounding)
    # A column that is zero from the start on is that of a parameter which the model does not use.
    lost = jnp.any(rounding & (largest > 0) & free)
    lost = lost | (jnp.any(free) & jnp.all(rounding | ~free))
    lost = lost & (length > error)  # at a perfect fit nothing is left that it could do
    factors = factorise(triangle, quadratic.curvature, scaling, optimality)
    lengths = jnp.where(rounding, norms, scaling)
    point = Point(triangle, factors, scaling, optimality, lost, error * (length + error), lengths)
    norms = tree.cast(unravel(largest, memory.norms), memory.norms)
    memory = Memory(norms, size.astype(memory.size.dtype))
    return point, memory, Cost(op.jacobian.passes, 1)


def _lengths(matrix: jax.Array) -> jax.Array:
    """The norms of the columns, without overflow or underflow of squares."""
    peaks = jnp.max(jnp.abs(matrix), axis=0, initial=0)
    units = jnp.where((peaks > 0) & jnp.isfinite(peaks), peaks, 1)
    return units * jnp.linalg.norm(matrix / units[None], axis=0)


def _least(norms, x, residual, outputs, reads: str) -> tuple[jax.Array, jax.Array]:
    """The least scaling of each column, and the mask of columns at rounding level.

    The size of a parameter is ``|x|`` if it contributes to the outputs, so that units do not
    matter; otherwise at least one; for ``x = 0`` the largest ``|x|``.
    """
    eps, sizes = jnp.finfo(norms.dtype).eps, jnp.abs(x)
    typical = jnp.where(x == 0, jnp.max(sizes, initial=1), jnp.maximum(sizes, 1))
    typical = jnp.where(norms * sizes > jnp.sqrt(eps) * outputs, sizes, typical)
    rounding = norms * typical <= 10 * eps * outputs
    if reads == "radius":  # which alone bounds a step; the unit of a parameter at zero is not known
        small = jnp.where(x == 0, 0, LEAST * jnp.minimum(outputs, residual) / typical)
    else:
        small = jnp.zeros_like(norms)
    return small, rounding


def _reduce(a: jax.Array, r: jax.Array, rest: jax.Array) -> Triangle:
    span = None
    if a.shape[0] < a.shape[1]:
        basis, upper = lapack.qr(a.T)
        a, whole = upper.T, rest
        rest = jnp.matmul(basis.T, whole, precision=HIGHEST)
        span = Span(basis, whole - jnp.matmul(basis, rest, precision=HIGHEST))
    return Triangle(*triangular(a, r), rest, span)


def damped(triangle: Triangle, damping: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``U_λ`` and ``q_λ``: the triangle of ``[U; √λ I]`` with ``[q; 0]``."""
    k = triangle.q.size
    eye = jnp.sqrt(damping) * jnp.eye(k, dtype=triangle.q.dtype)
    return triangular(jnp.concatenate([triangle.upper, eye]), jnp.pad(triangle.q, (0, k)))


def back_substituted(upper: jax.Array, q: jax.Array, rest: jax.Array) -> jax.Array:
    """The minimiser ``−U⁻¹(q + U⁻ᵀ rest)``."""
    return -lapack.with_upper(upper, _with_rest(upper, q, rest))


def _with_rest(upper: jax.Array, q: jax.Array, rest: jax.Array) -> jax.Array:
    # The rest is nonzero only after a change of the gradient, such as clipping.
    return jax.lax.cond(
        jnp.any(rest != 0), lambda: q + lapack.with_upper_transposed(upper, rest), lambda: q
    )


def _unexplained(g: jax.Array, matrix: jax.Array, r: jax.Array) -> jax.Array:
    """``g − Rᵀ r``, set to zero at rounding level.

    Solving for rounding through ``(RᵀR)⁻¹`` would bring back the squared condition number.
    """
    rest = g - jnp.matmul(matrix.T, r, precision=HIGHEST)
    size = jnp.matmul(jnp.abs(matrix).T, jnp.abs(r), precision=HIGHEST)
    return jnp.where(jnp.abs(rest) <= 1e2 * jnp.finfo(r.dtype).eps * size, 0, rest)


def _optimality(
    triangle: Triangle, slopes: jax.Array, r: jax.Array, contributions: jax.Array
) -> jax.Array:
    """The angle between residual and columns: the smaller of two cosines, independent of units.

    The cosine with the *span* of the columns is ``‖q‖ / (‖r‖ + 10 noise)``. Its square is the
    fraction of f that Gauss-Newton can still remove, the relative offset of Bates and Watts (1981).
    If the Jacobian is singular at the solution, this cosine never becomes small; the second one is
    five times the largest cosine with a *single* column (the measure of MINPACK).

    Two rounding errors are excluded. The direction of a component of ``q`` has the relative error
    ``ε/pivot``, the pivot being the sine between its column and the earlier columns, so only the
    part above ``10 ε ‖r‖ / pivot`` counts. And if residuals vanish at the solution, a plain cosine
    stays near one until the residual is rounding. The noise, ``√(kε)`` times the contributions of
    the parameters to the outputs, makes ``≤ √ε`` reachable: rounding the parameters then moves r as
    far. The part below ``10 ε`` times the contributions is rounding of the residuals, for any
    tolerance. Neither passes a point from where more than 1 % of f, and more than the rounding of
    the parameters, can be removed: there the plain cosine counts, unless the single columns tell of
    a singular Jacobian, or the residuals are rounding themselves.
    """
    size = jnp.linalg.norm(r)
    eps = jnp.finfo(size.dtype).eps
    noise = jnp.sqrt(eps * triangle.q.size) * contributions
    upper, q = triangle.upper, _with_rest(*triangle[:3])
    lengths = jnp.linalg.norm(upper, axis=0)
    pivots = jnp.abs(jnp.diag(upper)) / jnp.where(lengths > 0, lengths, 1)
    floor = jnp.where(pivots > 0, 10 * eps * size / jnp.where(pivots > 0, pivots, 1), jnp.inf)
    span = jnp.linalg.norm(jnp.where(jnp.isnan(q), q, jnp.maximum(jnp.abs(q) - floor, 0)))
    single = jnp.max(jnp.abs(slopes), initial=0)
    seen = lambda length: jnp.maximum(length - 10 * eps * contributions, 0)
    # The span contains every column, also a column that rounding hides from the triangle.
    plain = jnp.maximum(span, single)
    whole, alone = seen(plain), seen(single)
    unit = jnp.where(whole == 0, 1, size)  # no 0/0 if all residuals vanish
    optimality = jnp.minimum(whole / (unit + 10 * noise), 5 * alone / (unit + noise))
    removable = plain > jnp.maximum(REMOVED * size, eps * contributions)
    removable = removable & (single > SINGULAR * size) & (size > 30 * eps * contributions)
    return jnp.where(removable, jnp.maximum(optimality, plain / unit), optimality)
