"""Trust-region and cubic solvers in a Krylov space, without a matrix.

Lanczos builds an orthonormal basis ``Q`` of ``span(g, Bg, B²g, …)`` in which ``B`` is tridiagonal,
``QᵀBQ = T``, and the gradient is ``‖g‖ e₁``. The regularised model in that basis is a small dense
problem, solved exactly. Another radius or cubic weight needs no new products, only another small
solve (Gould, Lucidi, Roma and Toint 1999).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder import settings
from secondorder.linalg import _secular as secular
from secondorder.operators import _lanczos as lanczos
from secondorder.operators._lanczos import Basis
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver, no_memory
from secondorder.step import Report, Stop, make_step


def _basis(quadratic: Quadratic, max_steps: int, tolerance: float) -> Basis:
    """Basis and projection of ``B`` on the Krylov space of the gradient.

    Stops early where the space is invariant to rounding, or where the unregularised solution
    (eigenvalues in magnitude) has a residual below ``tolerance ‖g‖``.
    """

    def extend(carry):
        basis, _ = carry
        grown, image, rest = lanczos.expand(quadratic.curvature.mv, basis)
        grown = lanczos.append(grown, image, rest)
        w, v = lanczos.eigen(grown, basis.size)
        eps = jnp.finfo(w.dtype).eps
        magnitude = jnp.maximum(jnp.abs(w), eps * jnp.max(jnp.abs(w)))
        parts = v[basis.size - 1] * v[0] / jnp.where(magnitude > 0, magnitude, 1)
        return grown, (rest == 0) | (rest * jnp.abs(jnp.sum(parts)) <= tolerance)

    start = lanczos.start(quadratic.grad, max_steps)
    basis, _ = jax.lax.while_loop(
        lambda carry: ~carry[1] & (carry[0].size <= max_steps) & jnp.isfinite(start.norm),
        extend,
        (start, start.norm == 0),
    )
    return basis._replace(size=basis.size - 1)


def _in_krylov_space(minimise: Callable, reads: str, max_steps: int, tolerance: float) -> Solver:
    def prepare(quadratic: Quadratic, memory):
        basis = _basis(quadratic, max_steps, tolerance)
        return basis, memory, Cost(basis.size)

    def solve(quadratic: Quadratic, basis: Basis, memory: tuple, scale: jax.Array):
        del quadratic
        w, v = lanczos.eigen(basis, basis.size)
        c = basis.norm * v[0]
        found = minimise(w, c, scale.astype(w.dtype))
        coefficients = v @ found.z
        step = lanczos.combine(coefficients, basis.vectors)
        last = jnp.maximum(basis.size - 1, 0)
        residual = jnp.abs(basis.off[last] * coefficients[last])
        negative = jnp.where(w[0] < 0, Stop.NEGATIVE_CURVATURE.value, Stop.BOUNDARY.value)
        limited = basis.size >= max_steps
        stopped = jnp.where(limited, Stop.MAX_STEPS.value, Stop.SOLVED.value)
        stopped = jnp.where(found.interior, stopped, negative)
        predicted = jnp.sum(found.z * (c + 0.5 * w * found.z))
        sound = jnp.isfinite(predicted) & jnp.isfinite(basis.norm)
        return make_step(
            step,
            predicted,
            Report(
                iterations=basis.size,
                residual=residual / jnp.where(basis.norm > 0, basis.norm, 1),
                stopped=jnp.where(sound, stopped, Stop.NONFINITE.value),
            ),
            length=jnp.linalg.norm(coefficients),
        ), memory

    return Solver(no_memory, solve, prepare, reads=reads)


@settings.checked()
def gltr(max_steps: int = 40, tolerance: float = 1e-2) -> Solver:
    """``min m(d)`` over ``‖d‖ ≤ Δ`` in the Krylov space of the gradient.

    Unlike :func:`secondorder.solvers.steihaug` it continues from the boundary to the best point on
    it, and a smaller Δ after a rejection costs no products. Memory: ``max_steps`` vectors.

    Args:
      max_steps: maximum number of products per step.
      tolerance: relative residual at which it stops.

    Example:
      >>> import secondorder as so
      >>> opt = so.newton_cg(solver=so.solvers.gltr())
    """
    return _in_krylov_space(secular.within_radius, "radius", max_steps, tolerance)


@settings.checked()
def krylov_cubic(max_steps: int = 40, tolerance: float = 1e-2) -> Solver:
    """``min m(d) + σ/3 ‖d‖³`` in the Krylov space of the gradient (Cartis et al. 2011, section 6).

    Args:
      max_steps: maximum number of products per step, and of vectors in memory.
      tolerance: relative residual at which it stops.

    Example:
      >>> import secondorder as so
      >>> opt = so.cubic_newton(solver=so.solvers.krylov_cubic())
    """
    return _in_krylov_space(secular.cubically_regularised, "cubic", max_steps, tolerance)
