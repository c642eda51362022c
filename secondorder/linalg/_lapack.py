"""Factorisations of a matrix, and solves with it, that ``vmap`` takes one after another on a CPU.

A batched LAPACK call on a CPU waits on a thread of XLA's pool for its parts, which need a thread of
the same pool. Where as many calls run at once as the pool has threads, none comes to an end: two on
two cores, with JAX 0.10.2. A call of one matrix waits for nothing. XLA runs calls at once that do
not depend on one another, so no order within one solve is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax.custom_batching import custom_vmap

from secondorder import meshes

FEW = 4  # largest number of columns with unrolled loops


def in_turn(one: Callable, few: Callable | None = None) -> Callable:
    """The function ``one`` of arrays, under ``vmap`` lane after lane on a CPU.

    Derivatives are those of ``one``.

    Args:
      one: a function of a matrix and further arrays.
      few: the same of a batch of matrices with at most :data:`FEW` columns, without LAPACK.
    """

    @custom_vmap
    def run(*arrays: jax.Array) -> Any:
        return one(*arrays)

    @run.def_vmap
    def _(size: int, batched: Any, *arrays: jax.Array) -> tuple[Any, Any]:
        lanes = meshes.lanes(size, batched, arrays)
        sharding = meshes.lane_sharding(lanes[0])
        if few and lanes[0].shape[2] <= FEW:
            found = few(*lanes)
        elif size == 1:
            found = jax.tree.map(lambda x: x[None], run(*(x[0] for x in lanes)))
        elif sharding is None:
            found = each(*lanes)
        else:
            specs: Any = {"in_specs": sharding.spec, "out_specs": sharding.spec}
            found = jax.shard_map(each, mesh=sharding.mesh, **specs, check_vma=False)(*lanes)
        return found, jax.tree.map(lambda x: True, found)

    def each(*arrays: jax.Array) -> Any:
        # A further vmap batches the body of the loop, and so meets `run` again.
        in_a_loop = lambda *arrays: jax.lax.map(lambda lane: run(*lane), arrays)
        return jax.lax.platform_dependent(*arrays, cpu=in_a_loop, default=jax.vmap(one))

    @jax.custom_jvp
    def differentiable(*arrays: jax.Array) -> Any:
        return run(*arrays)

    differentiable.defjvp(lambda primals, tangents: jax.jvp(one, primals, tangents))
    return differentiable


cholesky = in_turn(jnp.linalg.cholesky)
"""The lower factor of a matrix; NaN where it is not positive definite."""

eigh = in_turn(lambda matrix: tuple(jnp.linalg.eigh(matrix)))
"""Ascending eigenvalues of a symmetric matrix, and eigenvectors as columns."""

qr = in_turn(lambda matrix: tuple(jnp.linalg.qr(matrix)))
"""The thin orthogonal factor and the upper one."""

solve = in_turn(jnp.linalg.solve)
"""``A⁻¹ b`` by LU."""

inverse = in_turn(jnp.linalg.inv)
"""``A⁻¹`` by LU."""

with_cholesky = in_turn(lambda lower, b: jsl.cho_solve((lower, True), b))
"""``(L Lᵀ)⁻¹ b``."""

with_lower = in_turn(lambda lower, b: jsl.solve_triangular(lower, b, lower=True))
"""``L⁻¹ b``."""

with_upper = in_turn(lambda upper, b: jsl.solve_triangular(upper, b))
"""``U⁻¹ b``."""

with_upper_transposed = in_turn(lambda upper, b: jsl.solve_triangular(upper, b, trans=1))
"""``U⁻ᵀ b``."""
