"""Krylov bases for instruments, continued where the space is exhausted."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators import _lanczos as lanczos
from secondorder.operators._base import Operator
from secondorder.operators._lanczos import Basis
from secondorder.spectrum._probes import precision
from secondorder.tree import Params

MISSED = 0.01  # the probability that an eigenvalue lies beyond the bounds of `beyond`


def krylov_basis(op: Operator, vector: Params, key: jax.Array, steps: int) -> Basis:
    """The Krylov basis of ``vector`` from ``steps`` products, at most the dimension.

    If the space becomes invariant earlier, a random direction orthogonal to it continues the basis,
    with a zero in ``T``: so every eigenvalue is found as often as it occurs, given the steps.
    """

    def extend(basis: Basis, i: jax.Array):
        grown, image, rest = lanczos.expand(op.mv, basis)

        def anew():
            # Normal numbers: random signs lie in the space too often where it is small, and only
            # rounding is left of them then.
            draw = tree.random_normal(jax.random.fold_in(key, i), vector)
            fresh = lanczos.orthogonal(draw, basis.vectors)
            return fresh, tree.norm(fresh)

        following, norm = jax.lax.cond(rest > 0, lambda: (image, rest), anew)
        return lanczos.append(grown, following, rest, norm), None

    basis, _ = jax.lax.scan(extend, lanczos.start(vector, steps), jnp.arange(steps))
    return basis._replace(size=jnp.asarray(steps, jnp.int32))


def ritz(op: Operator, like: Params, key: jax.Array, steps: int):
    """Ritz values in ascending order, residuals, vectors in the basis, and the basis.

    The start is normal, so that it has a part in every eigenvector.
    """
    first, rest = jax.random.split(key)
    basis = krylov_basis(op, tree.random_normal(first, like), rest, steps)
    w, v = lanczos.eigen(basis, basis.size)
    residuals = jnp.hypot(jnp.abs(basis.off[-1] * v[-1]), rounding(w, like))
    return w, residuals, v, basis


def quadrature_basis(op: Operator, like: Params, key: jax.Array, steps: int):
    """The Krylov basis of a vector of random signs, and its size before it is exhausted."""

    def extend(basis: Basis, _):
        grown, image, rest = lanczos.expand(op.mv, basis)
        return lanczos.append(grown, image, rest), None

    start = lanczos.start(tree.random_signs(key, like), steps)
    basis, _ = jax.lax.scan(extend, start, length=steps)
    return basis, 1 + jnp.sum(jnp.cumprod(basis.off[:-1] > 0))


def quadrature(basis: Basis, used: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gauss' nodes and weights for the spectral measure of the basis' first vector.

    Nodes beyond the ``used`` ones have weight zero and the value of the first.
    """
    w, v = lanczos.eigen(basis, used)
    within = jnp.arange(w.size) < used
    return jnp.where(within, w, w[0]), jnp.where(within, v[0] ** 2, 0)


def rounding(w: jax.Array, like: Params) -> jax.Array:
    """The rounding error of eigenvalues, from the basis and from the products."""
    return max(8 * float(jnp.finfo(w.dtype).eps), precision(like)) * jnp.max(jnp.abs(w))


def beyond(w: jax.Array, basis: Basis, size: int) -> tuple[jax.Array, jax.Array]:
    """Bounds of the spectrum below ``w[0]`` and above ``w[-1]``, with high probability.

    The Lanczos polynomial ``p(x) = Π (x − wⱼ) / Π offⱼ`` is orthonormal in the start's spectral
    measure, so ``|p(λ)| ≤ 1/|τ|`` at an eigenvalue λ, with ``τ`` the start's component along its
    vector; normal starts have ``|τ| √size < δ`` with probability ``0.8 δ`` (van Dorsselaer,
    Hochstenbach and van der Vorst 2000).
    """
    dtype = w.dtype
    logs = jnp.log(basis.off).astype(dtype)
    limit = jnp.sum(logs) + jnp.log(jnp.asarray(0.8 * size**0.5 / MISSED, dtype))

    def reach(gaps: jax.Array) -> jax.Array:
        """The root of ``Σ log(t + gapsⱼ) = limit``, one of the gaps being zero."""
        high = jnp.exp(limit / gaps.size)

        def halve(_, bracket):
            low, high = bracket
            middle = 0.5 * (low + high)
            short = jnp.sum(jnp.log(middle + gaps)) < limit
            return jnp.where(short, middle, low), jnp.where(short, high, middle)

        return jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(high), high))[1]

    return reach(w - w[0]), reach(w[-1] - w)
