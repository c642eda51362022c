"""Preconditioners of conjugate gradients: positive definite ``M⁻¹ ≈ (B + λ I)⁻¹``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.operators import _nystrom as ny
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, no_memory, nothing_prepared
from secondorder.tree import Params


class Preconditioner(NamedTuple):
    """``M⁻¹ ≈ (B + λ I)⁻¹``: ``prepare`` once per point, ``inverse`` once per solve.

    Attributes:
      inverse: ``(quadratic, factors, damping) -> (r ↦ M⁻¹ r)``.
      init: ``params -> memory``; works on ``ShapeDtypeStruct`` leaves.
      prepare: ``(quadratic, memory) -> (factors, memory, Cost)``, once per point.
    """

    inverse: Callable[[Quadratic, Any, jax.Array], Callable[[Params], Params]]
    init: Callable[[Params], Any] = no_memory
    prepare: Callable[[Quadratic, Any], tuple[Any, Any, Cost]] = nothing_prepared


Inverse = Callable[[Quadratic, jax.Array], Callable[[Params], Params]]


def as_preconditioner(given: Preconditioner | Inverse | None) -> Preconditioner:
    """The preconditioner of a plain ``(quadratic, damping) -> (r ↦ M⁻¹ r)``; identity for None."""
    if given is None:
        return Preconditioner(lambda quadratic, factors, damping: lambda r: r)
    if isinstance(given, Preconditioner):
        return given
    return Preconditioner(lambda quadratic, factors, damping: given(quadratic, damping))


def known_inverse() -> Inverse:
    """``M⁻¹``: the curvature's own approximation of ``(B + λ I)⁻¹``.

    For ``curvature.preconditioned(exact(ggn), …)``, whose inverse is that of K-FAC or of a
    diagonal. One matrix serves all iterations of a solve.

    Raises:
      TypeError: at update, a curvature without ``solve``.

    Example:
      >>> import secondorder as so
      >>> solver = so.solvers.cg(preconditioner=so.solvers.known_inverse())
    """

    def of(quadratic: Quadratic, damping: jax.Array) -> Callable[[Params], Params]:
        return lambda residual: quadratic.curvature.solve(residual, damping)

    return of


class Memory(NamedTuple):
    """Memory of :func:`nystrom`: key data, the number of solves, and the sketch if it is kept."""

    key: jax.Array
    count: jax.Array
    sketch: ny.Sketch | None


@settings.checked(refresh_every=settings.SIZE)
def nystrom(rank: int, *, refresh_every: int = 1, seed: int = 0) -> Preconditioner:
    """``M⁻¹ = (λ_l + λ) U (Λ + λ)⁻¹ Uᵀ + (I − U Uᵀ)`` of the randomised Nyström ``B ≈ U Λ Uᵀ``.

    From l = ``rank`` products with B, ``Y = B Ω``, Ω random and orthonormal; ``λ_l`` is the
    smallest of the l eigenvalues Λ. It removes the large eigenvalues, for any eigenvectors: with l
    three times the effective dimension ``tr B (B + λ I)⁻¹`` the expected condition number is below
    28 for every λ. If l reaches the rank of B, it is exact, and CG needs one or two iterations. If
    l is too small for λ, the l products save few iterations. At a late point of Poisson's equation
    (n = 129, λ 1e-11 of the trace, effective dimension 45) CG to 1e-6 takes 382 products, and 203,
    74 or 67 with l = 16, 32 or 64, the products of the sketch included.

    For :func:`cg`, in the space of the parameters or, within :func:`sample_space`, of the samples.
    The report counts the products. Each solve applies its own λ, so a sketch stays valid when λ
    changes.

    Args:
      rank: l, the number of products, and of vectors in memory during a solve.
      refresh_every: solves from one sketch to the next; more than 1 keeps l vectors in the state.
      seed: seed of the random Ω, drawn anew for each sketch.

    Raises:
      ValueError: ``rank`` or ``refresh_every`` below 1.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> c, p = jnp.concatenate([jnp.geomspace(1e3, 10, 10), jnp.ones(90)]), jnp.zeros(100)
      >>> f = so.sum_of_squares(lambda p: c * (p - 1))
      >>> def iterations(solver):
      ...     tx = so.scale_by_curvature(so.exact(so.ggn), solver, so.trust.fixed(1e-3))
      ...     _, state = tx.update(-(c**2), tx.init(p), p, value_fn=f)
      ...     return so.diagnostics(state)["iterations"].item()
      >>> sketched = so.solvers.cg(preconditioner=so.solvers.nystrom(15))
      >>> 2 * iterations(sketched) < iterations(so.solvers.cg())
      True

    Source: Frangella, Tropp and Udell (2021), algorithms 2.1 and 5.1, theorem 5.1.
    """

    def init(params: Params) -> Memory:
        kept = None if refresh_every == 1 else ny.empty(params, rank)
        return Memory(jax.random.key_data(jax.random.key(seed)), jnp.zeros((), jnp.int32), kept)

    def prepare(quadratic: Quadratic, memory: Memory) -> tuple[ny.Sketch, Memory, Cost]:
        key = tree.folded(memory.key, memory.count)
        mv, like = quadratic.curvature.mv, quadratic.grad
        draw, due = lambda: ny.sketched(mv, like, key, rank), memory.count % refresh_every == 0
        old = memory.sketch
        sketch = draw() if old is None else jax.lax.cond(due, draw, lambda: old)
        kept = memory._replace(count=memory.count + 1, sketch=None if old is None else sketch)
        return sketch, kept, Cost(jnp.where(due, sketch.values.size, 0))

    inverse = lambda quadratic, sketch, damping: lambda r: ny.preconditioned(sketch, r, damping)
    return Preconditioner(inverse, init, prepare)
