"""Matrix sign: the nearest matrix with orthonormal columns or rows, of each leaf of a step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from secondorder import meshes, settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, redirected

HIGHEST = jax.lax.Precision.HIGHEST
FAST = (3.4445, -4.775, 2.0315)  # of Jordan et al.: small singular values grow 3.4 times a step
EXACT = (1.875, -1.25, 0.375)  # singular values converge to 1, at the third order


@settings.checked()
def matrix_sign(solver: Solver, steps: int = 5, polish: int = 0) -> Solver:
    """``U Vᵀ`` of each leaf ``U S Vᵀ`` of the step of ``solver``, by Newton-Schulz iterations.

    ``X ← a X + b X XᵀX + c X (XᵀX)²`` from ``X = D/‖D‖`` moves all singular values towards 1. A
    leaf of more than two axes counts as a matrix with its last axis as columns, a vector as one
    column. A leaf of zeros stays as it is.

    Args:
      solver: source of the step, such as ``apply_inverse()``, or ``momentum(apply_inverse())``.
      steps: iterations that raise small singular values fast, and end between about 0.7 and 1.2.
      polish: further iterations that converge to 1; with 3, every singular value above 1/500 of
        ``‖D‖`` ends within 1e-6 of it.

    Example:
      >>> import jax.numpy as jnp, optax, secondorder as so
      >>> solver = so.solvers.matrix_sign(so.solvers.momentum(so.solvers.apply_inverse(), 0.95))
      >>> gradient = so.curvature.identity()
      >>> muon = optax.chain(
      ...     so.scale_by_curvature(gradient, solver, so.trust.fixed()), optax.scale(0.02))
      >>> w = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> updates, _ = muon.update(w, muon.init(w), w, value_fn=lambda w: jnp.sum(w * w) / 2)
      >>> bool(jnp.all(jnp.diag(updates) < -0.01))
      True

    Source: Jordan et al. (2024); Higham (2008), chapter 8, for the iteration.
    """

    def solve(quadratic: Quadratic, factors: Any, memory: Any, scale: jax.Array):
        found, memory = solver.solve(quadratic, factors, memory, scale)
        step = jax.tree.map(lambda x: _sign(x, steps, polish), found.direction)
        return redirected(found, step, quadratic), memory

    measure = lambda factors, memory, direction: tree.norm(direction)
    return solver._replace(solve=solve, measure=measure)


def _sign(leaf: jax.Array, steps: int, polish: int) -> jax.Array:
    if not leaf.size:
        return leaf
    x = jnp.asarray(meshes.gathered(leaf), tree.accumulation_dtype(leaf.dtype))
    x = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1)
    wide = x.shape[0] < x.shape[1]
    x = x.T if wide else x
    peak = jnp.max(jnp.abs(x))
    x = x / jnp.where(peak > 0, peak, 1)
    x = x / jnp.where(peak > 0, jnp.linalg.norm(x), 1)
    for a, b, c in (FAST,) * steps + (EXACT,) * polish:
        gram = jnp.matmul(x.T, x, precision=HIGHEST)
        inner = b * gram + c * jnp.matmul(gram, gram, precision=HIGHEST)
        x = a * x + jnp.matmul(x, inner, precision=HIGHEST)
    x = (x.T if wide else x).reshape(leaf.shape)
    return meshes.placed_like(x.astype(leaf.dtype), leaf)
