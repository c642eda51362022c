"""Loss from any function of the outputs, by automatic differentiation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp

from secondorder import checks, meshes, tree
from secondorder.linalg import _lapack as lapack
from secondorder.losses._base import Loss, Outputs

GENERIC_ROOT_LIMIT = 4096  # outputs; a larger dense root of M does not fit into memory
SIGNED_STEPS = 30  # products for one sample beyond it: √λ to 1/30 of the largest one


@dataclasses.dataclass(frozen=True, eq=False)
class AnyLoss(Loss):
    """Any scalar function of the outputs as a loss, its curvature by autodiff.

    Products cost about two passes through the loss. ``root`` and ``residual`` need a dense
    eigendecomposition of ``M``, so they are for small outputs.

    Where ``fn`` is not convex, ``curvature`` is ``M`` itself, indefinite, and ``S Sᵀ`` its upward
    part: eigenvalues that are not above 0 become ``(v·∇ℓ)/(v·z)``, v their eigenvector, where that
    is positive, and 0 elsewhere. For a sum over residuals it is the weight ``ρ'(r)/r`` of
    iteratively reweighted least squares, so that a loss without curvature at the start, such as
    Huber's for outliers alone, has a model with a descent step; where the slope is zero, the weight
    is zero.

    Product and root differ on purpose: an indefinite matrix has no root, and its upward part no
    product without a root. The solvers allow for it: those by products (``cg``, ``direct``) detect
    negative curvature and report it; those on rows (``qr``, ``svd``) solve the convex model with
    the whole gradient. The robust losses replace the negative part in both, term by term.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> loss = so.losses.AnyLoss(lambda z: jnp.sum(jnp.log(1 + z**2)))
      >>> loss.curvature(jnp.zeros(2), jnp.ones(2)).tolist()
      [2.0, 2.0]
    """

    fn: Callable[[Outputs], jax.Array]

    semidefinite = False

    def __call__(self, outputs: Outputs) -> jax.Array:
        return self.fn(tree.whole(outputs))

    def curvature(self, outputs: Outputs, v: Outputs) -> Outputs:
        return jax.jvp(jax.grad(self), (outputs,), (tree.cast(v, outputs),))[1]

    def _eigen(self, outputs: Outputs):
        flat, unravel = _ravelled(outputs)
        if flat.size > GENERIC_ROOT_LIMIT:
            raise ValueError(
                f"A root of the curvature of {self.fn!r} was asked for, but the model has "
                f"{flat.size} outputs and a loss without a closed form needs a dense root of that "
                f"size (limit {GENERIC_ROOT_LIMIT}). Use one of the library's losses, or a solver "
                "that needs products only, such as cg() or direct()."
            )
        hessian = jax.hessian(lambda z: self(tree.cast(unravel(z), outputs)))(flat)
        values, vectors = lapack.eigh(hessian.astype(flat.dtype))
        eps = jnp.finfo(flat.dtype).eps
        floor = eps * flat.size * jnp.max(jnp.abs(values), initial=0)
        slope = _matvec(vectors.T, self._ravel(jax.grad(self)(outputs)))
        place = _matvec(vectors.T, flat)
        steep = jnp.abs(slope) > jnp.sqrt(eps) * jnp.max(jnp.abs(slope), initial=0)
        same = steep & (slope * place > 0)
        weight = jnp.where(same, slope / jnp.where(same, place, 1), 0)
        return jnp.where(values > floor, values, weight), vectors, slope, unravel

    def _ravel(self, x: Outputs) -> jax.Array:
        return _ravelled(x)[0]

    def root(self, outputs: Outputs, u: Outputs) -> Outputs:
        values, vectors, _, unravel = self._eigen(outputs)
        return tree.cast(unravel(_matvec(vectors, jnp.sqrt(values) * self._ravel(u))), u)

    def root_transpose(self, outputs: Outputs, v: Outputs) -> Outputs:
        values, vectors, _, unravel = self._eigen(outputs)
        return tree.cast(unravel(jnp.sqrt(values) * _matvec(vectors.T, self._ravel(v))), v)

    def residual(self, outputs: Outputs) -> Outputs:
        values, _, slope, unravel = self._eigen(outputs)
        return unravel(jnp.where(values > 0, slope / jnp.sqrt(jnp.where(values > 0, values, 1)), 0))

    def signed(self, outputs: Outputs, signs: Outputs) -> Outputs:
        """``S u``; for many outputs by Lanczos' process, from products alone."""
        if tree.size(outputs) <= GENERIC_ROOT_LIMIT:
            return self.root(outputs, signs)
        u, unravel = _ravelled(signs)
        product = lambda x: self._ravel(self.curvature(outputs, unravel(x)))
        return unravel(_root_times(product, u, SIGNED_STEPS))


def _ravelled(x: Outputs) -> tuple[jax.Array, Callable[[jax.Array], Outputs]]:
    """The entries as one vector, gathered, and the way back."""
    wide = tree.accumulator(x)
    whole = jax.tree.unflatten(jax.tree.structure(wide), meshes.gathered_leaves(wide))
    flat, unravel = jax.flatten_util.ravel_pytree(whole)
    return flat, lambda z: jax.tree.map(meshes.placed_like, unravel(z), wide)


def _root_times(product: Callable, u: jax.Array, steps: int) -> jax.Array:
    """``√M₊ u ≈ ‖u‖ Q √T₊ e₁``, ``T = QᵀMQ`` tridiagonal on the Krylov space of u."""
    size = jnp.linalg.norm(u)

    def step(carry, k):
        basis, q = carry
        basis = basis.at[k].set(q)
        image = product(q)
        rest = image
        for _ in range(2):
            rest = rest - _matvec(basis.T, _matvec(basis, rest))
        norm = jnp.linalg.norm(rest)
        goes_on = norm > 10 * jnp.finfo(u.dtype).eps * jnp.linalg.norm(image)
        q = jnp.where(goes_on, rest / jnp.where(goes_on, norm, 1), 0)
        return (basis, q), (_matvec(basis, image))

    start = jnp.zeros((steps, u.size), u.dtype), u / jnp.where(size > 0, size, 1)
    (basis, _), columns = jax.lax.scan(step, start, jnp.arange(steps))
    # row k: the entries of T from products with earlier vectors, its lower triangle
    lower = jnp.tril(columns)
    values, vectors = lapack.eigh(lower + jnp.tril(lower, -1).T)
    roots = vectors * jnp.sqrt(jnp.maximum(values, 0))
    return size * _matvec(basis.T, _matvec(roots, vectors[0]))


def _matvec(matrix: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, x, precision=jax.lax.Precision.HIGHEST)


def as_loss(loss: Callable[[Outputs], jax.Array]) -> Loss:
    """``loss`` itself if it is a :class:`Loss`, else an :class:`AnyLoss` around it.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> type(so.losses.as_loss(jnp.sum)).__name__
      'AnyLoss'
    """
    return loss if isinstance(loss, Loss) else AnyLoss(checks.number(loss, "compose", "loss"))
