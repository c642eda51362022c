"""Kronecker products, block by block: ``B = ⊕ₖ F₁ ⊗ F₂`` for the layers of a network.

A block joins the leaves of a layer to an array ``(S, a, b)``: a stack of S independent linear maps
with a inputs and b outputs. Its factors are the second moments ``A (S, a, a)`` of the inputs and
``G (S, b, b)`` of the gradient with respect to the outputs, so that on the block

    B v = A v G,        (B + λ I)⁻¹ v ≈ (A + π √λ I)⁻¹ v (G + √λ/π I)⁻¹

with ``π² = (tr A/a) / (tr G/b)``, separately for each map. A diagonal factor is stored as its
diagonal, ``(S, a)``, and a missing one as ``None``, the identity. A block may have any number of
factors: a leaf outside all layers has one for each axis, ``(S, d₁, …, d_r)``, and the geometric
mean of their traces splits the damping into ``λ^(1/r)`` each.

Source: Martens and Grosse (2015), sections 3 and 6.3; George et al. (2018) for the eigenvalues.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from secondorder import meshes, tree
from secondorder.linalg import _lapack as lapack
from secondorder.operators._base import Operator
from secondorder.operators._diagonal import damped_power
from secondorder.tree import Params, Scalar

HIGHEST = jax.lax.Precision.HIGHEST
Factors = tuple[Any, ...]  # per axis an array (S, d, d), a diagonal (S, d), or None


class Block(Protocol):
    """Leaves joined to one array with Kronecker structure."""

    @property
    def leaves(self) -> tuple[int, ...]:
        """Indices of the leaves in ``jax.tree.leaves(params)``."""
        ...

    def join(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The leaves of the block, in its order, as one array ``(S, d₁, …, d_r)``, gathered."""
        ...

    def split(self, array: jax.Array) -> list[jax.Array]:
        """The leaves from the array of ``join``."""
        ...


def along_axes(factors: Factors, x: jax.Array) -> jax.Array:
    """``(⊗ᵢ Fᵢ) x`` for ``x (S, d₁, …, d_r)``."""
    for axis, factor in enumerate(factors, start=1):
        if factor is None:
            continue
        x = x * along(factor, axis, x.ndim) if factor.ndim == 2 else _product(factor, x, axis)
    return x


def _product(factor: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """``F x`` for each of ``(S, d, d)``, along one axis."""
    if axis == x.ndim - 1:  # already the last axis: no transposition
        contract = ((axis,), (2,)), ((0,), (0,))
        return jax.lax.dot_general(x, factor, contract, precision=HIGHEST)
    contract = ((2,), (axis,)), ((0,), (0,))
    return jnp.moveaxis(jax.lax.dot_general(factor, x, contract, precision=HIGHEST), 1, axis)


def along(vector: jax.Array, axis: int, ndim: int) -> jax.Array:
    """``(S, d)``, reshaped to broadcast along one axis."""
    return jnp.expand_dims(vector, tuple(i for i in range(1, ndim) if i != axis))


def transposed(factors: Factors) -> Factors:
    """``Fᵢᵀ`` for each axis."""
    return tuple(f if f is None or f.ndim == 2 else f.mT for f in factors)


def outer(vectors: Factors, shape: tuple[int, ...]) -> jax.Array:
    """``⊗ᵢ vᵢ`` of vectors ``(S, dᵢ)`` in the shape ``(S, d₁, …, d_r)`` of a block."""
    product = jnp.ones(shape, tree.joined(*(v.dtype for v in vectors if v is not None)))
    for axis, vector in enumerate(vectors, start=1):
        if vector is not None:
            product = product * along(vector, axis, len(shape))
    return product


def grams(like: Factors, v: jax.Array, w: jax.Array) -> Factors:
    """``v wᵀ`` along each axis, symmetric; or its diagonal, or ``None``, as in ``like``."""

    def gram(axis: int, factor: jax.Array | None) -> jax.Array | None:
        others = [i for i in range(1, v.ndim) if i != axis]
        if factor is None:
            return None
        if factor.ndim == 2:
            return jnp.sum(v * w, axis=tuple(others))
        product = jax.lax.dot_general(v, w, ((others, others), ((0,), (0,))), precision=HIGHEST)
        return 0.5 * (product + product.mT)

    return tuple(gram(axis, factor) for axis, factor in enumerate(like, start=1))


def mean_trace(factor: jax.Array) -> jax.Array:
    """``tr F / d`` for each map, ``(S,)``, clipped at zero."""
    entries = factor if factor.ndim == 2 else jnp.diagonal(factor, axis1=1, axis2=2)
    return jnp.maximum(jnp.sum(entries, axis=1) / max(entries.shape[1], 1), 0)


def shifts(factors: Sequence[jax.Array], damping: Scalar) -> list[jax.Array]:
    """The damping of each factor, ``(S,)``: ``λ^(1/r) mᵢ / exp(mean log m)``, m the mean traces.

    For two factors: ``π √λ`` and ``√λ / π``. A zero factor counts as one with trace 1. Each shift
    is at least the rounding error of its factor.
    """
    if not factors:
        return []
    means = [mean_trace(f) for f in factors]
    logs = [jnp.log(jnp.where(m > 0, m, 1)) for m in means]
    middle = sum(logs[1:], logs[0]) / len(logs)
    share = jnp.asarray(damping, middle.dtype) ** (1 / len(factors))
    eps = 10 * jnp.finfo(middle.dtype).eps
    floor = [eps * f.shape[1] * m for f, m in zip(factors, means, strict=True)]
    wanted = [share * jnp.exp(log - middle) for log in logs]
    return [jnp.maximum(w, least) for w, least in zip(wanted, floor, strict=True)]


def inverses(factors: Factors, damping: Scalar) -> Factors:
    """``(Fᵢ + shiftᵢ I)⁻¹`` by Cholesky; NaN for an indefinite factor."""

    def inverse(factor: jax.Array, shift: jax.Array) -> jax.Array:
        if factor.ndim == 2:
            size = factor + shift[:, None]
            return jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0)
        return jax.vmap(whole)(factor, shift)

    def whole(factor: jax.Array, shift: jax.Array) -> jax.Array:
        eye = jnp.eye(factor.shape[-1], dtype=factor.dtype)
        half = lapack.with_lower(lapack.cholesky(factor + shift * eye), eye)
        return jnp.matmul(half.mT, half, precision=HIGHEST)

    own = [f for f in factors if f is not None]
    found = iter([inverse(f, s) for f, s in zip(own, shifts(own, damping), strict=True)])
    return tuple(None if f is None else next(found) for f in factors)


def residuals(kept: Factors, factors: Factors, damping: Scalar) -> list[jax.Array]:
    """``‖P (F + shift I) − I‖ / √d`` for each map: the relative error of the inverses P."""

    def residual(inverse: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
        if factor.ndim == 2:  # a zero entry has no inverse, and counts as no error
            error = jnp.where(inverse > 0, inverse * (factor + shift[:, None]) - 1, 0)
            return jnp.sqrt(jnp.sum(error * error, axis=1) / max(error.shape[1], 1))
        eye = jnp.eye(factor.shape[-1], dtype=factor.dtype)[None]
        damped = factor + shift[:, None, None] * eye
        error = jnp.matmul(inverse, damped, precision=HIGHEST) - eye
        return jnp.sqrt(jnp.mean(jnp.sum(error * error, axis=2), axis=1))

    pairs = [(p, f) for p, f in zip(kept, factors, strict=True) if f is not None]
    sizes = shifts([f for _, f in pairs], damping)
    return [residual(*pair, shift) for pair, shift in zip(pairs, sizes, strict=True)]


def _by_block(blocks: Sequence[Block], fn: Callable, v: Params, *rest: Sequence[Any]) -> Params:
    """The tree of ``fn(array of a block, …)``, split again, in at least float32."""
    leaves, structure = jax.tree.flatten(v)
    found = list(leaves)
    for block, *parts in zip(blocks, *rest, strict=True):
        own = [leaves[i] for i in block.leaves]
        wide = block.join([jnp.asarray(x, tree.accumulation_dtype(x.dtype)) for x in own])
        for i, x, new in zip(block.leaves, own, block.split(fn(wide, *parts)), strict=True):
            found[i] = meshes.placed_like(new.astype(x.dtype), x)
    return jax.tree.unflatten(structure, found)


@dataclasses.dataclass(frozen=True, eq=False)
class Kronecker(Operator):
    """``⊕ (D ⊗ᵢ Fᵢ + c I)``, with stored damped inverses if given.

    Attributes:
      blocks: the blocks; every leaf is in one block.
      factors: for each block, its factors F, symmetric and positive semi-definite; ``None`` to
        compute them from the inverses.
      inverses: for each block, the inverses of its damped factors; ``None`` to compute them at each
        solve.
      shifts: for each block, c; ``None`` if all are 0.
      entries: for each block, the diagonal of D in its shape, ``None`` for D = I, as beside
        factors; ``None`` if all are.

    Example:
      >>> import jax.numpy as jnp
      >>> from secondorder.operators import Kronecker, Leaf
      >>> A, G = 2 * jnp.eye(2)[None], 3 * jnp.eye(4)[None]
      >>> B = Kronecker((Leaf(0, (2, 4)),), ((A, G),))
      >>> float(B.mv(jnp.ones((2, 4)))[0, 0]), float(B.solve(jnp.ones((2, 4)), 6.0)[0, 0])
      (6.0, 0.0417)
    """

    semidefinite = True

    blocks: Sequence[Block]
    factors: Sequence[Factors] | None
    inverses: Sequence[Factors] | None = None
    shifts: Sequence[Scalar] | None = None
    entries: Sequence[jax.Array | None] | None = None

    def mv(self, v: Params) -> Params:
        def product(x, factors, entries, c):
            image = along_axes(factors, x)
            return (image if entries is None else entries * image) + c * x

        factors = self.factors
        if factors is None:
            assert self.inverses is not None
            factors = jax.tree.map(jax.vmap(lapack.inverse), self.inverses)
        rest = self._of_blocks(self.entries, None), self._of_blocks(self.shifts, 0.0)
        return _by_block(self.blocks, product, v, factors, *rest)

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``⊗ᵢ (Fᵢ + shiftᵢ I)⁻¹ v``; stored inverses already include their damping and c."""

        def quotient(x, factors, entries):
            x = along_axes(factors, x)
            return x if entries is None else x * damped_power(entries, -1, 0.0)

        kept = self.inverses
        if kept is None:
            assert self.factors is not None
            pairs = zip(self.factors, self._of_blocks(self.shifts, 0.0), strict=True)
            kept = [inverses(f, damping + c) for f, c in pairs]
        return _by_block(self.blocks, quotient, v, kept, self._of_blocks(self.entries, None))

    def _of_blocks(self, given: Sequence[Any] | None, default: Any) -> Sequence[Any]:
        return [default] * len(self.blocks) if given is None else given


@dataclasses.dataclass(frozen=True, eq=False)
class KroneckerEigen(Operator):
    """``⊕ (⊗ᵢ Qᵢ) diag(s) (⊗ᵢ Qᵢ)ᵀ``, with exact damping ``s + λ``.

    Attributes:
      blocks: the blocks; every leaf is in one block.
      bases: for each block, orthogonal ``(S, d, d)``, or ``None`` or ones ``(S, d)`` for no change
        of basis.
      entries: for each block, ``s ≥ 0`` of its shape ``(S, d₁, …, d_r)``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = jnp.arange(6.0).reshape(3, 2)
      >>> f = so.compose(so.squared_error(jnp.ones((3, 2))), lambda w: x @ w)
      >>> w = jnp.ones((2, 2))
      >>> curvature = so.curvature.layerwise(f, eigen=True)
      >>> operator, _ = curvature.update(w, curvature.init(w), w, f)
      >>> isinstance(operator, so.operators.KroneckerEigen)
      True
    """

    semidefinite = True

    blocks: Sequence[Block]
    bases: Sequence[Factors]
    entries: Sequence[jax.Array]

    def _apply(self, v: Params, fn: Callable[[jax.Array], jax.Array]) -> Params:
        block = lambda x, q, s: along_axes(q, fn(s) * along_axes(transposed(q), x))
        return _by_block(self.blocks, block, v, self.bases, self.entries)

    def mv(self, v: Params) -> Params:
        return self._apply(v, lambda s: s)

    def solve(self, v: Params, damping: Scalar) -> Params:
        """``(B + λ I)⁻¹ v``."""
        return self.power(v, -1, damping)

    def power(self, v: Params, p: Scalar, damping: Scalar) -> Params:
        """``(B + λ I)ᵖ v``."""
        return self._apply(v, lambda s: damped_power(s, p, damping))
