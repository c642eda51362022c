"""The model restricted to a Krylov space: trust region and cubic for matrices never formed.

Lanczos builds an orthonormal basis ``Q`` of ``span(g, Bg, B²g, …)`` in which ``B`` is tridiagonal,
``QᵀBQ = T``, and the gradient is ``‖g‖ e₁``. The regularised model in that basis is a small dense
problem, solved exactly; another radius or cubic weight needs no new products, only another small
solve (Gould, Lucidi, Roma and Toint 1999). The basis is reorthogonalised in full: in float32 sixty
steps without it show copies of eigenvalues that the matrix has once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.quadratic import Quadratic
from secondorder.solvers import secular
from secondorder.solvers.base import Solver, Step, Stop, make_step, prepared
from secondorder.tree import Params


class Basis(NamedTuple):
    """A Krylov space.

    Attributes:
      vectors: tree of ``(max_steps, *shape)``, orthonormal; unused rows are zero.
      diagonal, off: of ``T``, ``(max_steps,)`` each; ``off[j]`` joins j and j + 1.
      size: how many vectors are used.
      norm: ``‖g‖``.
    """

    vectors: Params
    diagonal: jax.Array
    off: jax.Array
    size: jax.Array
    norm: jax.Array


def lanczos(quadratic: Quadratic, max_steps: int, tolerance: float) -> Basis:
    """Basis and projection of ``B`` on the Krylov space of the gradient.

    Stops early where the space is invariant to rounding, or where the unregularised (magnitude)
    solution in it leaves a residual below ``tolerance ‖g‖``.
    """
    grad = quadratic.grad
    norm = tree.norm(grad)
    first = tree.scale(1 / jnp.where(norm > 0, norm, 1), grad)
    dtype = norm.dtype
    eps = jnp.finfo(dtype).eps
    vectors = jax.tree.map(lambda x: jnp.zeros((max_steps, *x.shape), x.dtype), first)
    vectors = jax.tree.map(lambda rows, x: rows.at[0].set(x), vectors, first)

    def extend(carry):
        basis, _ = carry
        j = basis.size
        last = jax.tree.map(lambda rows: rows[j - 1], basis.vectors)
        image = quadratic.curvature.mv(last)
        scale = tree.norm(image)
        bend = tree.vdot(last, image)
        for _ in range(2):  # once is not enough where the two nearly cancel (Parlett 1998, 6.9)
            image = _orthogonal(image, basis.vectors)
        rest = tree.norm(image)
        invariant = ~(rest > 10 * eps * scale)
        unit = tree.scale(jnp.where(invariant, 0, 1 / jnp.where(rest > 0, rest, 1)), image)
        grown = Basis(
            vectors=jax.tree.map(
                lambda rows, x: rows.at[j].set(x, mode="drop"), basis.vectors, unit
            ),
            diagonal=basis.diagonal.at[j - 1].set(bend),
            off=basis.off.at[j - 1].set(jnp.where(invariant, 0, rest)),
            size=j + 1,
            norm=basis.norm,
        )
        w, v = _eigen(grown, j)
        magnitude = jnp.maximum(jnp.abs(w), eps * jnp.max(jnp.abs(w)))
        tail = rest * jnp.abs(jnp.sum(v[j - 1] * v[0] / jnp.where(magnitude > 0, magnitude, 1)))
        return grown, invariant | (tail <= tolerance)

    zeros = jnp.zeros(max_steps, dtype)
    start = Basis(vectors, zeros, zeros, jnp.ones((), jnp.int32), norm)
    finite = jnp.isfinite(norm)
    basis, _ = jax.lax.while_loop(
        lambda carry: ~carry[1] & (carry[0].size <= max_steps) & finite,
        extend,
        (start, norm == 0),
    )
    return basis._replace(size=basis.size - 1)


def _orthogonal(x: Params, vectors: Params) -> Params:
    """``x − Q Qᵀ x``, rows of ``vectors`` orthonormal or zero."""
    dot = lambda rows, y: jnp.sum(rows * y, axis=tuple(range(1, rows.ndim)))
    dots = jax.tree.leaves(jax.tree.map(dot, vectors, x))
    coefficients = jnp.sum(jnp.stack(dots), axis=0)
    return jax.tree.map(lambda y, part: y - part, x, _combine(coefficients, vectors))


def _combine(coefficients: jax.Array, vectors: Params) -> Params:
    """``Σⱼ coefficientsⱼ vectorsⱼ``."""

    def leaf(rows):
        wide = coefficients.reshape(-1, *(1,) * (rows.ndim - 1))
        return jnp.sum(wide.astype(rows.dtype) * rows, axis=0)

    return jax.tree.map(leaf, vectors)


def _eigen(basis: Basis, used: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and vectors of ``T``; unused rows become the largest entry, off on their own."""
    index = jnp.arange(basis.diagonal.size)
    diagonal = jnp.where(index < used, basis.diagonal, 0)
    off = jnp.where(index[:-1] < used - 1, basis.off[:-1], 0)
    # Gershgorin: above every eigenvalue of the used part, so never the lowest.
    bound = 1 + 3 * jnp.maximum(jnp.max(jnp.abs(diagonal)), jnp.max(jnp.abs(off), initial=0))
    diagonal = jnp.where(index < used, diagonal, bound)
    return jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1))


def _in_krylov_space(minimise: Callable, reads: str, max_steps: int, tolerance: float) -> Solver:
    def prepare(quadratic: Quadratic, memory):
        return lanczos(quadratic, max_steps, tolerance), memory

    def answer(quadratic: Quadratic, basis: Basis, scale: jax.Array) -> Step:
        w, v = _eigen(basis, basis.size)
        c = basis.norm * v[0]
        found = minimise(w, c, scale.astype(w.dtype))
        coefficients = v @ found.z
        step = _combine(coefficients, basis.vectors)
        last = jnp.maximum(basis.size - 1, 0)
        residual = jnp.abs(basis.off[last] * coefficients[last])
        negative = jnp.where(w[0] < 0, Stop.NEGATIVE_CURVATURE.value, Stop.BOUNDARY.value)
        limited = basis.size >= max_steps
        stopped = jnp.where(limited, Stop.MAX_STEPS.value, Stop.SOLVED.value)
        stopped = jnp.where(found.interior, stopped, negative)
        boundary = ~found.interior & jnp.isfinite(scale) if reads == "radius" else False
        predicted = jnp.sum(found.z * (c + 0.5 * w * found.z))
        sound = jnp.isfinite(predicted) & jnp.isfinite(basis.norm)
        return make_step(
            step,
            predicted,
            length=jnp.linalg.norm(coefficients),
            boundary=boundary,
            iterations=basis.size,
            products=basis.size,
            residual=residual / jnp.where(basis.norm > 0, basis.norm, 1),
            stopped=jnp.where(sound, stopped, Stop.NONFINITE.value),
        )

    return prepared(prepare, answer, reads=reads)


def gltr(max_steps: int = 40, tolerance: float = 1e-2) -> Solver:
    """``min m(d)`` over ``‖d‖ ≤ Δ`` in the Krylov space of the gradient.

    Unlike :func:`secondorder.solvers.steihaug` it goes on past the boundary to the best point on
    it, and a smaller Δ after a rejection costs no products. Memory: ``max_steps`` vectors.

    Args:
      max_steps: at most this many products a step.
      tolerance: the relative residual asked for.

    Example:
      >>> import secondorder as so
      >>> opt = so.newton_cg(solver=so.solvers.gltr())
    """
    return _in_krylov_space(secular.within_radius, "radius", max_steps, tolerance)


def krylov_cubic(max_steps: int = 40, tolerance: float = 1e-2) -> Solver:
    """``min m(d) + σ/3 ‖d‖³`` in the Krylov space of the gradient (Cartis et al. 2011, section 6).

    Args:
      max_steps: at most this many products a step, and this many vectors of memory.
      tolerance: the relative residual asked for.
    """
    return _in_krylov_space(secular.cubically_regularised, "cubic", max_steps, tolerance)
