"""A trust region for least squares that takes the Hessian where the rows are not enough."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg import _secular as secular
from secondorder.operators._base import Operator
from secondorder.operators._switch import Switch
from secondorder.solvers._base import Solver
from secondorder.solvers._least_squares import (
    HIGHEST,
    Answer,
    Triangle,
    on_rows,
)
from secondorder.solvers._svd import in_region, singular_basis
from secondorder.step import Stop

NEARLY = 1e-2  # a cosine from which a point may be a minimum, or a saddle


class Eigen(NamedTuple):
    """The scaled Hessian ``D⁻¹ ∇²f D⁻¹ = V diag(w) Vᵀ``, and the gradient ``c`` in its basis.

    Attributes:
      flag: whether the step is the Hessian's; else the rest is meaningless, but for ``saddle``.
      saddle: whether the Hessian was looked at and has a negative eigenvalue.
      w, v, c: ascending eigenvalues, vectors as columns, ``Vᵀ D⁻¹ g``.
    """

    flag: jax.Array
    saddle: jax.Array
    w: jax.Array
    v: jax.Array
    c: jax.Array


def hybrid_region() -> Solver:
    """:func:`secondorder.solvers.svd_region`, and ``‖D d‖ ≤ Δ`` around the Hessian where flagged.

    For ``curvature.hybrid()``. Both steps are in Moré's scaled coordinates, so rescaling the
    parameters changes nothing. The Hessian is also looked at where the residual is nearly
    orthogonal to the columns, for so it is at a saddle, too: there the step is the Hessian's, and
    no measure of optimality is reported. With fewer rows than parameters, whose residuals can
    vanish, the Hessian is not taken.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.curvature.hybrid(), so.solvers.hybrid_region(), so.trust.radius())
    """
    return on_rows(_factorise, _solve, "radius")


def _factorise(triangle: Triangle, op: Operator, scaling: jax.Array, optimality: jax.Array):
    return singular_basis(triangle), _eigen(triangle, op, scaling, optimality)


def _eigen(triangle: Triangle, op: Operator, scaling: jax.Array, optimality: jax.Array):
    if not isinstance(op, Switch) or triangle.span is not None:
        return None
    dtype = scaling.dtype

    def eigen():
        matrix = op.first.matrix(op.gauss_newton().jacobian.params).astype(dtype)
        matrix = matrix / scaling[None] / scaling[:, None]
        # LAPACK may not return from a matrix with NaN.
        sound = jnp.all(jnp.isfinite(matrix))
        w, v = jnp.linalg.eigh(jnp.where(sound, matrix, 0))
        # Beside columns that were once much larger, the least eigenvalue drowns in the rounding of
        # the greatest; along its own vector it does not.
        lowest, size = _curvature(matrix, v[:, 0]), _curvature(jnp.abs(matrix), jnp.abs(v[:, 0]))
        saddle = lowest < -10 * jnp.finfo(dtype).eps * size
        w = w.at[0].set(jnp.where(saddle, lowest, w[0]))
        return tree.nan_unless(sound, w), v, saddle

    def none():
        return jnp.ones_like(scaling), jnp.eye(scaling.size, dtype=dtype), jnp.asarray(False)

    w, v, saddle = jax.lax.cond(op.flag | (optimality <= NEARLY), eigen, none)
    slope = jnp.matmul(triangle.upper.T, triangle.q, precision=HIGHEST) + triangle.rest
    # Near a solution an eigenvalue below √ε of the greatest is more rounding than curvature; the
    # rows, which are not squared, still see there.
    least = jnp.sqrt(jnp.finfo(dtype).eps) * jnp.max(jnp.abs(w))
    blind = (optimality <= NEARLY) & (jnp.min(jnp.abs(w)) <= least)
    return Eigen(
        (op.flag & ~blind) | saddle, saddle, w, v, jnp.matmul(v.T, slope, precision=HIGHEST)
    )


def _curvature(matrix: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.dot(v, jnp.matmul(matrix, v, precision=HIGHEST), precision=HIGHEST)


def _solve(triangle: Triangle, factors: tuple, delta: jax.Array) -> Answer:
    basis, eigen = factors
    rows = in_region(triangle, basis, delta)
    if eigen is None:
        return rows
    found = jax.lax.cond(
        eigen.flag,
        lambda: _settled(_newton(triangle, eigen, delta)),
        lambda: _settled(rows),
    )
    again: Any = rows.again  # there is no acceleration of the Hessian's step
    return found._replace(again=lambda v: jnp.where(eigen.flag, 0, again(v)))


def _newton(triangle: Triangle, eigen: Eigen, delta: jax.Array) -> Answer:
    w, v, c = eigen.w, eigen.v, eigen.c
    found = secular.within_radius(w, c, delta)
    z = jnp.matmul(v, found.z, precision=HIGHEST)
    change = jnp.matmul(triangle.upper, z, precision=HIGHEST)
    bent = 0.5 * (jnp.sum(w * found.z**2) - jnp.sum(change**2))
    stopped = jnp.where(w[0] < 0, Stop.NEGATIVE_CURVATURE.value, Stop.BOUNDARY.value)
    stopped = jnp.where(found.interior, Stop.SOLVED.value, stopped)
    return Answer(z, stopped, bent=bent, saddle=eigen.saddle)


def _settled(answer: Answer) -> Answer:
    """Every field an array of one dtype, as both branches of a ``cond`` have to return."""
    whole: Any = lambda x: jax.lax.convert_element_type(x, jnp.int32)
    return answer._replace(
        stopped=whole(answer.stopped),
        again=None,
        bent=jax.lax.convert_element_type(answer.bent, answer.z.dtype),
        saddle=jnp.asarray(answer.saddle),
    )
