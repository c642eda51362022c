"""Least-squares trust region that uses the Hessian where Gauss-Newton fails."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg import _lapack as lapack
from secondorder.linalg import _secular as secular
from secondorder.operators._base import Operator
from secondorder.operators._switch import Switch
from secondorder.solvers._base import Solver
from secondorder.solvers._least_squares import HIGHEST, Answer, Triangle, on_rows
from secondorder.solvers._svd import in_region, singular_basis
from secondorder.step import Stop

NEARLY = 1e-2  # below this optimality the point may be a minimum or a saddle


class Eigen(NamedTuple):
    """The scaled Hessian ``D⁻¹ ∇²f D⁻¹ = V diag(w) Vᵀ``, and the gradient ``c`` in its basis.

    Attributes:
      flag: whether the step uses the Hessian; otherwise only ``saddle`` is meaningful.
      saddle: whether the Hessian was computed and has a negative eigenvalue.
      w, v, c: ascending eigenvalues, vectors as columns, ``Vᵀ D⁻¹ g``.
    """

    flag: jax.Array
    saddle: jax.Array
    w: jax.Array
    v: jax.Array
    c: jax.Array


def hybrid_region() -> Solver:
    """``min m(d)`` over ``‖D d‖ ≤ Δ``, with the Hessian where flagged, else Gauss-Newton.

    For ``curvature.hybrid()``; the Gauss-Newton step is that of
    :func:`secondorder.solvers.svd_region`. Both steps are in Moré's scaled coordinates, so
    rescaling the parameters changes nothing. A residual nearly orthogonal to the columns may mean a
    saddle, so the Hessian is then computed too; at a saddle the step uses it, and reports no
    optimality. With fewer rows than parameters the residuals can vanish, and the Hessian is never
    used.

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
        # LAPACK may hang on a matrix with NaN.
        sound = jnp.all(jnp.isfinite(matrix))
        w, v = lapack.eigh(jnp.where(sound, matrix, 0))
        # Beside columns that were once much larger, the rounding of the largest eigenvalue hides
        # the smallest; the quadratic form of its eigenvector does not lose it.
        lowest, size = _curvature(matrix, v[:, 0]), _curvature(jnp.abs(matrix), jnp.abs(v[:, 0]))
        saddle = lowest < -10 * jnp.finfo(dtype).eps * size
        w = w.at[0].set(jnp.where(saddle, lowest, w[0]))
        return tree.nan_unless(sound, w), v, saddle

    def none():
        return jnp.ones_like(scaling), jnp.eye(scaling.size, dtype=dtype), jnp.asarray(False)

    w, v, saddle = jax.lax.cond(op.flag | (optimality <= NEARLY), eigen, none)
    slope = jnp.matmul(triangle.upper.T, triangle.q, precision=HIGHEST) + triangle.rest
    # Near a solution an eigenvalue below √ε of the largest is mostly rounding; the rows are not
    # squared, so they still resolve it.
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
    again: Any = rows.again  # no acceleration of the Hessian's step
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
    """The answer with arrays of fixed dtypes, the same for both branches of a ``cond``."""
    whole: Any = lambda x: jax.lax.convert_element_type(x, jnp.int32)
    return answer._replace(
        stopped=whole(answer.stopped),
        again=None,
        bent=jax.lax.convert_element_type(answer.bent, answer.z.dtype),
        saddle=jnp.asarray(answer.saddle),
    )
