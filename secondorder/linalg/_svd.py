"""Singular values of a dense matrix, also of one that LAPACK's first algorithm gives up on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax.linalg import SvdAlgorithm

Factors = tuple[jax.Array, jax.Array, jax.Array]


def _thin(a: jax.Array, algorithm: SvdAlgorithm) -> Factors:
    u, s, vt = jax.lax.linalg.svd(a, full_matrices=False, algorithm=algorithm)
    return u, s, vt


def _first(a: jax.Array) -> Factors:
    return _thin(a, SvdAlgorithm.DEFAULT)


def _other(a: jax.Array) -> Factors:
    return _thin(a, SvdAlgorithm.QR)


def _failed(found: Factors) -> jax.Array:
    return ~jnp.all(jnp.isfinite(found[1]))


@jax.custom_jvp
def _certain(a: jax.Array) -> Factors:
    # No cond: under vmap that takes both branches for everyone, and this loop none that it need
    # not. But no loop has a derivative backwards.
    # The compiler would take a body that reads nothing of the loop's out of it, and run it always.
    again = lambda carry: (_other(jnp.where(carry[1], 0, a)), jnp.asarray(True))
    lacking = lambda carry: _failed(carry[0]) & ~carry[1]
    return jax.lax.while_loop(lacking, again, (_first(a), jnp.asarray(False)))[0]


def _differentiable(a: jax.Array) -> Factors:
    return jax.lax.cond(_failed(_first(jax.lax.stop_gradient(a))), _other, _first, a)


_certain.defjvp(lambda primals, tangents: jax.jvp(_differentiable, primals, tangents))


def thin_svd(a: jax.Array) -> Factors:
    """``U, s, Vᵀ`` of a finite ``(m, k)`` matrix, each with min(m, k) singular vectors.

    On CPUs divide and conquer (LAPACK's gesdd) may return NaN of a well-conditioned matrix: of one
    in OpenBLAS 0.3.30 on one thread, 650 x 650 and of condition 19. QR iteration (gesvd), five
    times as slow, is asked where it does.
    """
    return jax.lax.platform_dependent(a, cpu=_certain, default=_first)
