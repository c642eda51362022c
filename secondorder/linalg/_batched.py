"""QR and singular values for least squares, vectorised over a batch of small problems.

LAPACK factorises one matrix after another. For a batch of matrices with few columns, one operation
on a column serves all of them, with the batch along the last axis. For 1024 matrices of two columns
this is eleven times as fast for singular values and three times for triangles; with each further
column it gains less, and from five on nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder.linalg import _lapack as lapack
from secondorder.linalg._svd import thin_svd

MAX_SWEEPS = 20  # usually five or six are enough


def _qr(a: jax.Array, r: jax.Array) -> tuple[jax.Array, jax.Array]:
    k = a.shape[1]
    factor = jnp.linalg.qr(jnp.concatenate([a, r[:, None]], axis=1), mode="r")
    return factor[:k, :k], factor[:k, k]


def _gram_schmidt(a: jax.Array, r: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``U`` and ``q`` by modified Gram-Schmidt.

    Without the orthogonal factor, as stable as Householder's reflections (Björck and Paige 1992).
    """
    k = a.shape[2]
    rest = jnp.concatenate([a, r[..., None]], axis=2).transpose(2, 1, 0)  # columns, rows, batch
    rows = []
    for j in range(k):
        size = jnp.sqrt(jnp.sum(rest[0] ** 2, axis=0))
        unit = rest[:1] / jnp.where(size > 0, size, 1)[None, None]
        along = jnp.sum(unit * rest[1:], axis=1)
        rest = rest[1:] - along[:, None] * unit
        rows.append(jnp.concatenate([jnp.zeros((j, *size.shape), a.dtype), size[None], along]))
    factor = jnp.stack(rows).transpose(2, 0, 1)
    return factor[..., :k], factor[..., k]


def _svd(a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    u, s, vt = thin_svd(a)
    return s, u * s[None], vt.T


def _jacobi(a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``s, W, V`` by one-sided rotations until columns are orthogonal (Hestenes 1958)."""
    k, eps = a.shape[1], jnp.finfo(a.dtype).eps

    def turned(columns, p: int, q: int, c: jax.Array, s: jax.Array):
        new, c, s = list(columns), c[None], s[None]
        new[p], new[q] = c * columns[p] - s * columns[q], s * columns[p] + c * columns[q]
        return new

    def sweep(carry):
        columns, vectors, _, count = carry
        worst = jnp.zeros((), a.dtype)
        for p in range(k):
            for q in range(p + 1, k):
                x, y = columns[p], columns[q]
                xx, yy, xy = (jnp.sum(z, axis=0) for z in (x * x, y * y, x * y))
                far = jnp.abs(xy) > eps * jnp.sqrt(xx) * jnp.sqrt(yy)
                cotangent = (yy - xx) / (2 * jnp.where(far, xy, 1))
                sign = jnp.where(cotangent < 0, -1, 1)
                t = jnp.where(far, sign / (jnp.abs(cotangent) + jnp.hypot(1, cotangent)), 0)
                c = jax.lax.rsqrt(1 + t * t)
                columns = turned(columns, p, q, c, c * t)
                vectors = turned(vectors, p, q, c, c * t)
                worst = jnp.maximum(worst, jnp.max(jnp.abs(t)))
        return columns, vectors, worst, count + 1

    eye = jnp.eye(k, dtype=a.dtype)
    start = (
        list(a.transpose(2, 1, 0)),  # each (k, batch)
        [jnp.broadcast_to(row[:, None], (k, a.shape[0])) for row in eye],
        jnp.ones((), a.dtype),
        jnp.zeros((), jnp.int32),
    )
    # After a rotation by √ε the remaining angle is ε.
    going = lambda carry: (carry[2] > jnp.sqrt(eps)) & (carry[3] < MAX_SWEEPS)
    columns, vectors, _, _ = jax.lax.while_loop(going, sweep, start)
    s = jnp.stack([jnp.sqrt(jnp.sum(x * x, axis=0)) for x in columns])
    matrix = lambda columns: jnp.stack(columns).transpose(2, 1, 0)
    return s.T, matrix(columns), matrix(vectors)


_triangular = lapack.in_turn(_qr, _gram_schmidt)
_singular = lapack.in_turn(_svd, _jacobi)


def triangular(a: jax.Array, r: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``U`` and ``q`` with ``‖a z + r‖² = ‖U z + q‖²`` and a constant, by QR of ``[a r]``.

    Args:
      a: ``(m, k)``, m ≥ k.
      r: ``(m,)``.
    """
    return _triangular(a, r)


def singular(a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``s, W, V`` with ``a V = W``, the columns of W orthogonal and of length s, in any order.

    Args:
      a: ``(k, k)``, finite: LAPACK may not return from a matrix with NaN.
    """
    return _singular(a)
