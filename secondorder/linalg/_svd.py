"""Singular values of a dense matrix, with a second algorithm where LAPACK's first one fails."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax.linalg import SvdAlgorithm

from secondorder.linalg._lapack import in_turn

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
    # A loop, not a cond: in a vmapped program a cond runs both branches. The loop has no reverse
    # derivative, hence the custom rule. The body reads the carry, since the compiler would move it
    # out of the loop otherwise, and always run it.
    again = lambda carry: (_other(jnp.where(carry[1], 0, a)), jnp.asarray(True))
    lacking = lambda carry: _failed(carry[0]) & ~carry[1]
    return jax.lax.while_loop(lacking, again, (_first(a), jnp.asarray(False)))[0]


def _differentiable(a: jax.Array) -> Factors:
    return jax.lax.cond(_failed(_first(jax.lax.stop_gradient(a))), _other, _first, a)


_certain.defjvp(lambda primals, tangents: jax.jvp(_differentiable, primals, tangents))


_certain_in_turn = in_turn(_certain)


def thin_svd(a: jax.Array) -> Factors:
    """``U, s, Vᵀ`` of a finite ``(m, k)`` matrix, each with min(m, k) singular vectors.

    On CPUs divide and conquer (LAPACK's gesdd) may return NaN for a well-conditioned matrix, as in
    OpenBLAS 0.3.30 on one thread for one of 650 x 650 and condition 19. Then QR iteration (gesvd),
    five times as slow, replaces it.
    """
    return jax.lax.platform_dependent(a, cpu=_certain_in_turn, default=_first)
