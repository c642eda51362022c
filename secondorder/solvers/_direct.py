"""The dense system, by a Cholesky factorisation that an indefinite matrix cannot break."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from secondorder import tree
from secondorder.operators._dense import dense, ravel, unravel
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver, no_memory
from secondorder.step import Report, Stop, make_step

MAX_SHIFTS = 30  # growing fourfold from 1e-3; in the scaled coordinates no eigenvalue is below −n


def safe_cholesky(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Cholesky factor of ``A + τ D`` with the first of a growing series of τ ≥ 0 that is safe.

    Safe means that the factorisation exists and no pivot fell below the rounding level of its own
    diagonal entry. τ = 0 is tried first (Nocedal and Wright 2006, algorithm 3.3). ``D`` is
    :func:`shift_scaling`, so rescaling the coordinates, ``A → SAS``, rescales the shift alike,
    ``τD → S(τD)S``, and changes nothing else.

    Returns:
      The lower factor (NaN for a matrix that is not finite) and the diagonal of ``τ D``.
    """
    n = matrix.shape[0]
    diagonal = jnp.diag(matrix)
    scaling = shift_scaling(matrix)
    eps, unit = jnp.finfo(matrix.dtype).eps, 1e-3
    lowest = jnp.min(diagonal / scaling, initial=jnp.inf)
    first = jnp.where(lowest > 0, 0, unit - lowest).astype(matrix.dtype)

    def attempt(shift):
        factor = jnp.linalg.cholesky(matrix + jnp.diag(shift * scaling))
        pivots = jnp.diag(factor) ** 2
        # NaN pivots compare false, so a failed factorisation is never safe.
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
    """The diagonal of a ``D`` that measures every coordinate in the matrix's own units.

    ``Dᵢ = √bᵢ maxⱼ |Aᵢⱼ| / √bⱼ``, with ``bᵢ = |Aᵢᵢ|`` where that is not zero. Then

    * ``A → SAS`` gives ``D → S²D``, exactly for powers of two;
    * ``|Aᵢⱼ|² ≤ Dᵢ Dⱼ``: no entry of ``D^(-½) A D^(-½)`` exceeds one, and no eigenvalue n;
    * ``D`` is the diagonal of ``A`` where that is positive semi-definite.

    Where ``Aᵢᵢ = 0``, the other rows say what ``i`` is measured in: ``bᵢ = maxⱼ Aᵢⱼ² / |Aⱼⱼ|`` over
    ``Aⱼⱼ ≠ 0``. A coordinate that they say nothing of either has no units of its own (``[[0, 1],
    [1, 0]]`` is the same for any ``S = diag(s, 1/s)``): ``bᵢ = maxⱼ |Aᵢⱼ|``, or the largest entry
    of all where the row is zero, or one.
    """
    entries = jnp.abs(matrix)
    own = jnp.diag(entries)
    root = jnp.sqrt(jnp.where(own > 0, own, 1))
    of_others = jnp.max(jnp.where(own[None] > 0, entries / root[None], 0), axis=1, initial=0)
    # √b throughout: a square would leave the range of float32 where A does not.
    row, largest = jnp.max(entries, axis=1, initial=0), jnp.max(entries, initial=0)
    unknown = jnp.sqrt(jnp.where(row > 0, row, jnp.where(largest > 0, largest, 1)))
    root = jnp.where(own > 0, root, jnp.where(of_others > 0, of_others, unknown))
    reach = jnp.max(entries / root[None], axis=1, initial=0)
    return root * jnp.where(reach > 0, reach, root)


def direct() -> Solver:
    """``d = −(B + λI + τD)⁻¹ g`` by Cholesky, with the smallest tried shift τ ≥ 0 that is safe.

    For problems whose matrix fits in memory: forms ``B`` (n products, or the Jacobian where the
    curvature is ``Jᵀ M J``) and factors it, O(n³). An indefinite or singular ``B`` is shifted until
    it is safely positive definite, so the step is always a descent direction; the step reports
    ``Stop.SHIFTED``. The shift is in each parameter's own units (:func:`shift_scaling`), so
    rescaling the parameters rescales the step; λ, which the user sets, is absolute.

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
        # A parameter that nothing depends on, as on a bound, is no reason to shift the others.
        absent = (g == 0) & ~jnp.any(matrix != 0, axis=0)
        damped = damped + jnp.diag(jnp.where(absent, 1, 0).astype(matrix.dtype))
        factor, shift = safe_cholesky(damped)
        step = -cho_solve((factor, True), g)
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
