"""A Krylov basis that goes on where the space is exhausted."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators import lanczos
from secondorder.operators.base import Operator
from secondorder.operators.lanczos import Basis
from secondorder.tree import Params


def krylov_basis(op: Operator, vector: Params, key: jax.Array, steps: int) -> Basis:
    """``steps`` products from ``vector`` on, with ``steps`` at most the dimension.

    Where the space is invariant before that, it is continued by a random direction orthogonal to
    it, with a zero in ``T``: so every eigenvalue is found as often as it occurs, given the steps.
    """

    def extend(basis: Basis, i: jax.Array):
        grown, image, rest = lanczos.expand(op.mv, basis)

        def anew():
            fresh = lanczos.orthogonal(
                tree.random_signs(jax.random.fold_in(key, i), vector), basis.vectors
            )
            return fresh, tree.norm(fresh)

        following, norm = jax.lax.cond(rest > 0, lambda: (image, rest), anew)
        return lanczos.append(grown, following, rest, norm), None

    basis, _ = jax.lax.scan(extend, lanczos.start(vector, steps), jnp.arange(steps))
    return basis._replace(size=jnp.asarray(steps, jnp.int32))


def ritz(op: Operator, like: Params, key: jax.Array, steps: int):
    """Ritz values in ascending order, their residuals, their vectors in the basis, the basis."""
    first, rest = jax.random.split(key)
    basis = krylov_basis(op, tree.random_signs(first, like), rest, steps)
    w, v = lanczos.eigen(basis, basis.size)
    return w, jnp.abs(basis.off[-1] * v[-1]), v, basis
