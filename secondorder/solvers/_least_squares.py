"""What the least-squares solvers share: the rows ``R`` with ``B = RᵀR``, scaled and triangular.

Squaring the Jacobian squares its condition number, and with it goes half of the digits. ``RᵀR`` is
therefore never formed. With ``D`` the largest norm each column of ``R`` has had so far (Moré 1978,
section 6) and ``y = D d``, ``A = R D⁻¹``, rescaling a parameter or the residuals rescales the step
and changes nothing else.

That alone would take a column of rounding, of a parameter on which nothing depends as yet, for one
in large units, and send the parameter to 1e15. A column of rounding is therefore none, and in a
region ``D`` is at least a tenth of the lesser of ``‖r‖`` and ``‖R x‖``, summed by columns, over
``|x|``: a parameter may grow a hundredfold in one step, not more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from secondorder import tree
from secondorder.linalg._batched import triangular
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._gauss_newton import GaussNewton
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver
from secondorder.step import Again, Report, Stop, make_step

HIGHEST = jax.lax.Precision.HIGHEST
LEAST = 0.1  # of the residual, what a change of a parameter by its own size is taken to move
REGION = 10.0  # times the scaled length of the parameters: a region that no step has shown


class Span(NamedTuple):
    """What fewer rows than parameters see.

    Attributes:
      basis: ``(n, k)``, orthonormal: no y outside it changes the rows.
      outside: the part of the gradient outside it, ``(n,)``, which damping alone answers.
    """

    basis: jax.Array
    outside: jax.Array


class Triangle(NamedTuple):
    """The local least-squares problem after one orthogonal factorisation.

    ``½‖A y + r‖² + rest·y`` is ``½‖U z + q‖² + rest·z`` and a constant, with ``y = basis z``; of
    the size of the parameters, however many rows there are.

    Attributes:
      upper: ``U``, ``(k, k)``, upper triangular, ``k`` the lesser of rows and parameters.
      q: the rotated residual, ``(k,)``; zero where the curvature knows none.
      rest: the part of the gradient that ``Uᵀ q`` does not explain, ``(k,)``: what a clipping or a
        decay added before, or all of it where there is no residual.
      span: where there are fewer rows than parameters; else ``None``, and ``y = z``.
    """

    upper: jax.Array
    q: jax.Array
    rest: jax.Array
    span: Span | None


class Point(NamedTuple):
    """What a row solver keeps of a point: its triangle, its own factors, and what it reports.

    Attributes:
      region: the radius where a policy has none as yet; infinity where the parameters are zero.
    """

    triangle: Triangle
    factors: Any
    scaling: jax.Array
    optimality: jax.Array
    region: jax.Array


class Memory(NamedTuple):
    """What a row solver remembers.

    Attributes:
      norms: the largest norm that each column has had, shaped like the parameters.
      size: of the outputs: the largest residual so far, and what the parameters contribute to the
        outputs at the start.
    """

    norms: Any
    size: jax.Array


class Answer(NamedTuple):
    """What a row solver finds.

    Attributes:
      z: the step.
      stopped: why it stopped.
      again: ``v ↦ argmin ½‖U a‖² + ½ λ‖a‖² + v·a`` for the λ of the step, where there is one.
      bent: ``½ z·(B − UᵀU) z``, where the model is not of the rows alone.
      saddle: whether the curvature is negative somewhere, so that no angle proves a minimum.
    """

    z: jax.Array
    stopped: Any
    again: Callable[[jax.Array], jax.Array] | None = None
    bent: Any = 0.0
    saddle: Any = False


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
        scale = radius(point, memory, scale).astype(triangle.q.dtype)
        answer = solve(triangle, point.factors, scale)
        y = z = answer.z
        change = jnp.matmul(triangle.upper, z, precision=HIGHEST)
        # Not g·d + ½ d·Bd: this form loses no digits when the residuals are nearly fitted.
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
            ),
            length=jnp.linalg.norm(y),
            candidates=None if answer.again is None else Again(again),
        ), memory

    def init(params: tree.Params) -> Memory:
        zeros = tree.accumulator(tree.zeros_like(params))
        return Memory(zeros, jnp.zeros((), tree.dtype(zeros)))

    def measure(point: Point, memory: Memory, direction: tree.Params) -> jax.Array:
        del memory
        return jnp.linalg.norm(point.scaling * ravel(direction))

    def radius(point: Point, memory: Memory, scale: jax.Array) -> jax.Array:
        del memory
        return jnp.where(jnp.isfinite(scale), scale, point.region) if reads == "radius" else scale

    kind = {"reads": reads, "measures": True, "takes_jacobian": True}
    return Solver(init, step, prepare, measure=measure, radius=radius, **kind)


def no_factors(*ignored: Any) -> tuple:
    """For a solver that factorises anew at every trial."""
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
    triangle = _reduce(matrix / scaling[None], r, _unexplained(g, matrix, r) / scaling)
    optimality = jnp.full((), jnp.inf, matrix.dtype)  # angles to r say nothing of other losses
    if op.middle.least_squares and quadratic.own:
        optimality = _optimality(triangle, g / jnp.where(g == 0, 1, norms), r, shares, size)
        optimality = jnp.where(_lost(norms, largest, shares, size, quadratic), 1, optimality)
    factors = factorise(triangle, quadratic.curvature, scaling, optimality)
    reach = REGION * jnp.linalg.norm(jnp.where(rounding, norms, scaling) * x)
    region = jnp.where(reach > 0, reach, jnp.inf)
    point = Point(triangle, factors, scaling, optimality, region)
    norms = tree.cast(unravel(largest, memory.norms), memory.norms)
    memory = Memory(norms, size.astype(memory.size.dtype))
    return point, memory, Cost(op.jacobian.passes, 1)


def _lengths(matrix: jax.Array) -> jax.Array:
    """Of the columns, also where squares would overflow or underflow."""
    peaks = jnp.max(jnp.abs(matrix), axis=0, initial=0)
    units = jnp.where((peaks > 0) & jnp.isfinite(peaks), peaks, 1)
    return units * jnp.linalg.norm(matrix / units[None], axis=0)


def _least(norms, x, residual, outputs, reads: str) -> tuple[jax.Array, jax.Array]:
    """The least scaling of each column, and which columns are rounding.

    Beside ``outputs`` of this size a column of rounding is scaled to nothing, and its parameter
    stays. A parameter's size is its own where it contributes to them, so that no unit matters; else
    it is at least one, and that of a zero the largest one's.
    """
    eps, sizes = jnp.finfo(norms.dtype).eps, jnp.abs(x)
    typical = jnp.where(x == 0, jnp.max(sizes, initial=1), jnp.maximum(sizes, 1))
    typical = jnp.where(norms * sizes > jnp.sqrt(eps) * outputs, sizes, typical)
    rounding = norms * typical <= 10 * eps * outputs
    if reads == "radius":  # which alone bounds a step; the unit of a parameter at zero is not known
        small = jnp.where(x == 0, 0, LEAST * jnp.minimum(outputs, residual) / typical)
    else:
        small = jnp.zeros_like(norms)
    nothing = jnp.where(norms > 0, outputs / (eps * typical), 0)
    return jnp.where(rounding, nothing, small), rounding


def _lost(norms, largest, shares, size, quadratic: Quadratic) -> jax.Array:
    """Whether a parameter has run off to where nothing depends on it any more."""
    rounding = 10 * jnp.finfo(norms.dtype).eps
    gone = (norms < largest) & (norms <= rounding * largest) & (shares <= rounding * size)
    return jnp.any(gone if quadratic.held is None else gone & (ravel(quadratic.held) == 0))


def _reduce(a: jax.Array, r: jax.Array, rest: jax.Array) -> Triangle:
    span = None
    if a.shape[0] < a.shape[1]:
        basis, upper = jnp.linalg.qr(a.T)
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
    return -solve_triangular(upper, _with_rest(upper, q, rest))


def _with_rest(upper: jax.Array, q: jax.Array, rest: jax.Array) -> jax.Array:
    # There is a rest only where something has altered the gradient.
    return jax.lax.cond(
        jnp.any(rest != 0), lambda: q + solve_triangular(upper, rest, trans=1), lambda: q
    )


def _unexplained(g: jax.Array, matrix: jax.Array, r: jax.Array) -> jax.Array:
    """``g − Rᵀ r``, and exactly zero where that is rounding.

    Solving for rounding through ``(RᵀR)⁻¹`` would bring back the squared condition number.
    """
    rest = g - jnp.matmul(matrix.T, r, precision=HIGHEST)
    size = jnp.matmul(jnp.abs(matrix).T, jnp.abs(r), precision=HIGHEST)
    return jnp.where(jnp.abs(rest) <= 1e2 * jnp.finfo(r.dtype).eps * size, 0, rest)


def _optimality(
    triangle: Triangle, slopes: jax.Array, r: jax.Array, shares: jax.Array, outputs: jax.Array
) -> jax.Array:
    """How far the residual is from being orthogonal to the columns: two cosines, free of units.

    The cosine with their *span*, ``‖q‖ / (‖r‖ + 10 noise)``: its square is the part of f that
    Gauss-Newton could still take away, the relative offset of Bates and Watts (1981). Where the
    Jacobian is singular at the solution it never becomes small; then the largest cosine with a
    *single* column (MINPACK's measure) has to, fivefold.

    Two roundings stand in the way. A component of ``q`` belongs to a direction that is known to
    ``ε/pivot`` alone, the pivot being the sine between its column and those before it; only what
    exceeds ``10 ε ‖r‖ / pivot`` counts. And where residuals vanish at the solution a bare cosine
    stays of size one until it is rounding; against a noise of ``√(kε)`` of what the parameters
    themselves contribute (``shares``), ``≤ √ε`` means that rounding the parameters moves r as far.
    A share beyond ``1/√ε`` of the ``outputs`` is of a parameter that ran off, and excuses nothing.
    What is left below ``10 ε`` of the shares is rounding of the residuals, whatever the tolerance.
    """
    size = jnp.linalg.norm(r)
    eps = jnp.finfo(size.dtype).eps
    shares = jnp.minimum(shares, outputs / jnp.sqrt(eps))
    contributions = jnp.linalg.norm(shares)
    noise = jnp.sqrt(eps * triangle.q.size) * contributions
    upper, q = triangle.upper, _with_rest(*triangle[:3])
    lengths = jnp.linalg.norm(upper, axis=0)
    pivots = jnp.abs(jnp.diag(upper)) / jnp.where(lengths > 0, lengths, 1)
    floor = jnp.where(pivots > 0, 10 * eps * size / jnp.where(pivots > 0, pivots, 1), jnp.inf)
    span = jnp.linalg.norm(jnp.where(jnp.isnan(q), q, jnp.maximum(jnp.abs(q) - floor, 0)))
    single = jnp.max(jnp.abs(slopes), initial=0)
    seen = lambda length: jnp.maximum(length - 10 * eps * contributions, 0)
    # The span holds every column, also one that roundings hide from its triangle.
    whole, single = seen(jnp.maximum(span, single)), seen(single)
    size = jnp.where(whole == 0, 1, size)  # else 0/0 where all residuals vanish
    return jnp.minimum(whole / (size + 10 * noise), 5 * single / (size + noise))
