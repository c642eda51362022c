"""Any other function of the outputs, by automatic differentiation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp

from secondorder import checks, tree
from secondorder.losses.base import Loss, Outputs

GENERIC_ROOT_LIMIT = 4096  # outputs; beyond it a dense root of M is larger than most machines


@dataclasses.dataclass(frozen=True, eq=False)
class AnyLoss(Loss):
    """The generic route: any scalar function of the outputs, its curvature by autodiff.

    Products cost about two passes through the loss. ``root`` and ``residual`` take a dense
    eigendecomposition of ``M``, so they serve small outputs.

    Where ``fn`` is not convex, ``curvature`` is ``M`` itself, indefinite, and ``S Sᵀ`` its upward
    part ``M₊`` (eigenvalues below 0 raised to 0). They differ on purpose: an indefinite matrix has
    no root, and its upward part no product without a root. The solvers expect it so: those that
    work by products (``cg``, ``direct``) recognise negative curvature and say so; those that work
    on rows (``qr``, ``svd``) solve the convex model of ``M₊`` and the whole gradient. The robust
    losses drop their negative part in both, since each of their terms shows its own.
    """

    fn: Callable[[Outputs], jax.Array]

    def __call__(self, outputs: Outputs) -> jax.Array:
        return self.fn(outputs)

    def curvature(self, outputs: Outputs, v: Outputs) -> Outputs:
        return jax.jvp(jax.grad(self.fn), (outputs,), (tree.cast(v, outputs),))[1]

    def _eigen(self, outputs: Outputs):
        flat, unravel = jax.flatten_util.ravel_pytree(tree.accumulator(outputs))
        if flat.size > GENERIC_ROOT_LIMIT:
            raise ValueError(
                f"A root of the curvature of {self.fn!r} was asked for, but the model has "
                f"{flat.size} outputs and a loss without a closed form needs a dense root of that "
                f"size (limit {GENERIC_ROOT_LIMIT}). Use one of the library's losses, or a solver "
                "that needs products only, such as cg() or direct()."
            )
        hessian = jax.hessian(lambda z: self.fn(tree.cast(unravel(z), outputs)))(flat)
        values, vectors = jnp.linalg.eigh(hessian.astype(flat.dtype))
        floor = jnp.finfo(flat.dtype).eps * flat.size * jnp.max(jnp.abs(values), initial=0)
        return jnp.where(values > floor, values, 0), vectors, unravel

    def _ravel(self, x: Outputs) -> jax.Array:
        return jax.flatten_util.ravel_pytree(tree.accumulator(x))[0]

    def root(self, outputs: Outputs, u: Outputs) -> Outputs:
        values, vectors, unravel = self._eigen(outputs)
        return tree.cast(unravel(_matvec(vectors, jnp.sqrt(values) * self._ravel(u))), u)

    def root_transpose(self, outputs: Outputs, v: Outputs) -> Outputs:
        values, vectors, unravel = self._eigen(outputs)
        return tree.cast(unravel(jnp.sqrt(values) * _matvec(vectors.T, self._ravel(v))), v)

    def residual(self, outputs: Outputs) -> Outputs:
        values, vectors, unravel = self._eigen(outputs)
        slope = _matvec(vectors.T, self._ravel(jax.grad(self.fn)(outputs)))
        return unravel(jnp.where(values > 0, slope / jnp.sqrt(jnp.where(values > 0, values, 1)), 0))


def _matvec(matrix: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, x, precision=jax.lax.Precision.HIGHEST)


def as_loss(loss: Callable[[Outputs], jax.Array]) -> Loss:
    """``loss`` itself where it knows its curvature, else the generic route around it."""
    return loss if isinstance(loss, Loss) else AnyLoss(checks.number(loss, "compose", "loss"))
