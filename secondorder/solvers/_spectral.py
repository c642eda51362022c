"""Dense solvers in the eigenbasis: modified Newton, exact trust region, exact cubic.

One eigendecomposition, ``B = V diag(w) Vᵀ``, serves every damping, radius or cubic weight, so a
rejected step costs O(n²). It costs about ten times a Cholesky factorisation, and does not fail for
an indefinite or singular matrix.

Radius and cubic weight measure ``‖D d‖``. ``Dᵢ²`` is the largest curvature so far along parameter i
(:func:`shift_scaling`), as Moré (1978) scales least squares by the columns of the Jacobian, so the
units of the parameters do not change the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import meshes, settings, tree
from secondorder.linalg import _lapack as lapack
from secondorder.linalg import _secular as secular
from secondorder.operators._dense import dense, ravel, unravel
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver, parameter_sizes
from secondorder.solvers._direct import shift_scaling
from secondorder.step import Report, Stop, make_step
from secondorder.tree import Params


def eigen() -> Solver:
    """``d = −Σ vᵢ (vᵢ·g) / (|wᵢ| + λ)``: Newton with eigenvalues in magnitude.

    If the Hessian is positive definite, this is Newton's step. Along a direction of negative
    curvature it goes downhill, so saddle points repel (Nocedal and Wright 2006, section 3.4).
    Eigenvalues below ``n ε`` of the largest are raised to this level.

    Example:
      >>> import secondorder as so
      >>> opt = so.newton(solver=so.solvers.eigen())
    """

    def solve(w, c, damping, own):
        del own
        peak = jnp.max(jnp.abs(w), initial=0)
        floor = w.size * jnp.finfo(w.dtype).eps * jnp.where(peak > 0, peak, 1)
        z = -c / (jnp.maximum(jnp.abs(w), floor) + damping)
        shifted = jnp.any(w < floor)
        stopped = jnp.where(shifted, Stop.SHIFTED.value, Stop.SOLVED.value)
        return z, stopped, ~shifted & (damping == 0)

    return _in_eigenbasis(solve, "damping", scaled=False)


@settings.checked()
def exact_region(scaled: bool = True) -> Solver:
    """``min m(d)`` over ``‖D d‖ ≤ Δ``, exact, with the hard case (Moré and Sorensen 1983).

    Args:
      scaled: True for ``D`` from the curvature; False for ``D = I``, for a matrix that does not
        approximate the Hessian yet.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.exact(so.hessian), so.solvers.exact_region(), so.trust.radius())
    """

    def solve(w, c, delta, own):
        found = secular.within_radius(w, c, delta, own=own)
        stopped = jnp.where(w[0] < 0, Stop.NEGATIVE_CURVATURE.value, Stop.BOUNDARY.value)
        stopped = jnp.where(found.interior, Stop.SOLVED.value, stopped)
        return found.z, stopped, found.interior

    return _in_eigenbasis(solve, "radius", scaled)


def exact_cubic() -> Solver:
    """``min m(d) + σ/3 ‖D d‖³``, exact (Nesterov and Polyak 2006; Cartis, Gould and Toint 2011).

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.exact(so.hessian), so.solvers.exact_cubic(), so.trust.cubic())
    """

    def solve(w, c, sigma, own):
        found = secular.cubically_regularised(w, c, sigma, own)
        stopped = jnp.where(w[0] < 0, Stop.NEGATIVE_CURVATURE.value, Stop.SOLVED.value)
        return found.z, stopped, found.interior

    return _in_eigenbasis(solve, "cubic", scaled=True)


def _in_eigenbasis(solve: Callable, reads: str, scaled: bool) -> Solver:
    """A solver from ``solve(w, c, scale, own) -> (z, stopped, full)``.

    The coordinates are ``y = D d`` if scaled, else ``d``; a damping is absolute, and not scaled.
    """

    def prepare(quadratic: Quadratic, largest: jax.Array):
        matrix = dense(quadratic.curvature, quadratic.grad)
        # LAPACK may hang on a matrix with NaN, and its eigenvectors would be meaningless.
        sound = jnp.all(jnp.isfinite(matrix))
        matrix = jnp.where(sound, matrix, 0)
        if scaled:
            largest = jnp.maximum(largest, jnp.sqrt(shift_scaling(matrix)))
            scaling = largest = meshes.held_whole(largest, quadratic.grad)
        else:
            scaling = jnp.ones(matrix.shape[0], matrix.dtype)
        w, v = lapack.eigh(matrix / scaling[None, :] / scaling[:, None])
        return (tree.nan_unless(sound, w), v, scaling), largest, Cost(w.size)

    def answer(quadratic: Quadratic, factors: tuple, largest: jax.Array, scale: jax.Array):
        w, v, scaling = factors
        like, high = quadratic.grad, jax.lax.Precision.HIGHEST
        c = jnp.matmul(v.T, ravel(like) / scaling, precision=high)
        z, stopped, full = solve(w, c, scale.astype(w.dtype), jnp.max(scaling, initial=0))
        predicted = jnp.sum(z * (c + 0.5 * w * z))
        step = jnp.matmul(v, z, precision=high) / scaling
        sound = jnp.all(jnp.isfinite(z)) & jnp.isfinite(predicted)
        return make_step(
            tree.cast(unravel(step, like), like),
            predicted,
            Report(stopped=jnp.where(sound, stopped, Stop.NONFINITE.value), full=full),
            length=jnp.linalg.norm(z),
        ), largest

    def init(params: Params) -> Any:
        return jnp.zeros(tree.size(params), tree.dtype(params)) if scaled else ()

    def measure(factors: tuple, largest: jax.Array, direction: Params) -> jax.Array:
        del largest
        return jnp.linalg.norm(factors[2] * ravel(direction))

    def sizes(factors: tuple, params: Params, grad: Params) -> Params:
        return parameter_sizes(params, grad, factors[2])

    kind = {"reads": reads, "sizes": sizes if scaled else None}
    return Solver(init, answer, prepare, measure=measure, **kind)
