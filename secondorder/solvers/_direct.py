"""Cholesky solver of the dense system, with a shift for an indefinite matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.linalg import _lapack as lapack
from secondorder.operators._dense import dense, ravel, unravel
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver, no_memory
from secondorder.step import Report, Stop, make_step

MAX_SHIFTS = 30  # growing fourfold from 1e-3; in the scaled coordinates no eigenvalue is below −n


def safe_cholesky(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Cholesky factor of ``A + τ D`` for the first safe τ of the growing series 0, 1e-3, ...

    A shift is safe if the factorisation exists and every pivot is above the rounding level of its
    diagonal entry (Nocedal and Wright 2006, algorithm 3.3). ``D`` is :func:`shift_scaling`, so
    rescaling the coordinates, ``A → SAS``, rescales the shift in the same way, ``τD → S(τD)S``.

    Returns:
      The lower factor (NaN for a matrix with non-finite entries) and the diagonal of ``τ D``.
    """
    n = matrix.shape[0]
    diagonal = jnp.diag(matrix)
    scaling = shift_scaling(matrix)
    eps, unit = jnp.finfo(matrix.dtype).eps, 1e-3
    lowest = jnp.min(diagonal / scaling, initial=jnp.inf)
    first = jnp.where(lowest > 0, 0, unit - lowest).astype(matrix.dtype)

    def attempt(shift):
        factor = lapack.cholesky(matrix + jnp.diag(shift * scaling))
        pivots = jnp.diag(factor) ** 2
        # A comparison with NaN is false, so a failed factorisation is never safe.
        return factor, jnp.all(pivots > n * eps * (jnp.abs(diagonal) + shift * scaling))

    def grow(carry):
        shift, tries, _, _ = carry
        shift = jnp.maximum(4 * shift, unit)
        return (shift, tries + 1, *attempt(shift))

    sound = jnp.all(jnp.isfinite(matrix))

    def unsafe(carry):
        _, tries, _, safe = carry
        return ~safe & (tries < MAX_SHIFTS) & sound

    shift, _, factor, _ = jax.lax.while_loop(
        unsafe, grow, (first, jnp.zeros((), jnp.int32), *attempt(first))
    )
    return factor, shift * scaling


def shift_scaling(matrix: jax.Array) -> jax.Array:
    """The diagonal of a scaling ``D`` in the units of the matrix ``A``.

    ``Dᵢ = √bᵢ maxⱼ |Aᵢⱼ| / √bⱼ``, with ``bᵢ = |Aᵢᵢ|`` where ``Aᵢᵢ ≠ 0``. Then

    * ``A → SAS`` gives ``D → S²D``, exactly for powers of two;
    * ``|Aᵢⱼ|² ≤ Dᵢ Dⱼ``: no entry of ``D^(-½) A D^(-½)`` exceeds 1, and no eigenvalue exceeds n;
    * ``D`` is the diagonal of ``A`` if ``A`` is positive semi-definite.

    Where ``Aᵢᵢ = 0``, the other rows give the unit: ``bᵢ = maxⱼ Aᵢⱼ² / |Aⱼⱼ|`` over ``Aⱼⱼ ≠ 0``.
    Where this maximum is zero too, no unit is defined (``[[0, 1], [1, 0]]`` is the same for every
    ``S = diag(s, 1/s)``). Then ``bᵢ = maxⱼ |Aᵢⱼ|``; for a zero row, the largest entry of ``A``; for
    a zero matrix, 1.
    """
    entries = jnp.abs(matrix)
    own = jnp.diag(entries)
    root = jnp.sqrt(jnp.where(own > 0, own, 1))
    of_others = jnp.max(jnp.where(own[None] > 0, entries / root[None], 0), axis=1, initial=0)
    # √b everywhere: a square may overflow in float32 where A does not.
    row, largest = jnp.max(entries, axis=1, initial=0), jnp.max(entries, initial=0)
    unknown = jnp.sqrt(jnp.where(row > 0, row, jnp.where(largest > 0, largest, 1)))
    root = jnp.where(own > 0, root, jnp.where(of_others > 0, of_others, unknown))
    reach = jnp.max(entries / root[None], axis=1, initial=0)
    return root * jnp.where(reach > 0, reach, root)


def direct() -> Solver:
    """``d = −(B + λI + τD)⁻¹ g`` by Cholesky, with the first safe shift τ ≥ 0.

    For problems whose matrix fits in memory: forms ``B`` (n products, or the Jacobian if the
    curvature is ``Jᵀ M J``) and factors it, O(n³). An indefinite or singular ``B`` is shifted until
    it is safely positive definite, so the step is always a descent direction; it reports
    ``Stop.SHIFTED``. The shift is in the units of each parameter (:func:`shift_scaling`), so
    rescaling the parameters rescales the step. The damping λ is absolute.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(so.exact(so.hessian), so.solvers.direct(), so.trust.damping())
    """

    def prepare(quadratic: Quadratic, memory: tuple):
        matrix = dense(quadratic.curvature, quadratic.grad)
        return matrix, memory, Cost(matrix.shape[0])

    def solve(quadratic: Quadratic, matrix: jax.Array, memory: tuple, damping: jax.Array):
        like = quadratic.grad
        g = ravel(like)
        damped = matrix + damping.astype(matrix.dtype) * jnp.eye(g.size, dtype=matrix.dtype)
        # A parameter without any effect, such as one on a bound, must not shift the others.
        absent = (g == 0) & ~jnp.any(matrix != 0, axis=0)
        damped = damped + jnp.diag(jnp.where(absent, 1, 0).astype(matrix.dtype))
        factor, shift = safe_cholesky(damped)
        step = -lapack.with_cholesky(factor, g)
        high = jax.lax.Precision.HIGHEST
        product = jnp.matmul(matrix, step, precision=high)
        error = product + (damping.astype(matrix.dtype) + shift) * step + g
        predicted = jnp.dot(g + 0.5 * product, step, precision=high)
        size = jnp.linalg.norm(g)
        stopped = jnp.where(jnp.any(shift > 0), Stop.SHIFTED.value, Stop.SOLVED.value)
        stopped = jnp.where(jnp.all(jnp.isfinite(step)), stopped, Stop.NONFINITE.value)
        direction = tree.cast(unravel(step, like), like)
        return make_step(
            direction,
            predicted,
            Report(
                residual=jnp.linalg.norm(error) / jnp.where(size > 0, size, 1),
                stopped=stopped,
                full=~jnp.any(shift > 0) & (damping == 0),
            ),
        ), memory

    return Solver(no_memory, solve, prepare)
