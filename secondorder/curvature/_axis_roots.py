"""Powers of the Grams along the axes, as inverse roots (Shampoo) or in eigenbases."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import settings
from secondorder.curvature._axis_grams import measured, new_bases, started, without_grams
from secondorder.curvature._structures import (
    Averages,
    Frame,
    Now,
    Structure,
    basis_drift,
    farthest,
    sound,
)
from secondorder.operators import _eigenbases as eb
from secondorder.operators import _kronecker as kr
from secondorder.operators._axes import Axes, CutLeaf
from secondorder.operators._base import Operator
from secondorder.operators._kronecker import Kronecker, KroneckerEigen
from secondorder.tree import Params, Scalar


@settings.checked(exponent=settings.POSITIVE)
def axis_roots(
    eps: Scalar = 1e-6, axes: Axes | None = None, exponent: Scalar | None = None
) -> Structure:
    """``⊗ᵢ (Gᵢ + ε I)^p`` over the k axes with a Gram, stored as inverse roots; p is 1/2k.

    Each refresh computes the roots by ``eigh``, with negative eigenvalues raised to zero, for use
    in the same step. Leaves without Grams have a diagonal, ``(E[v∘w] + ε)^½``.

    Args:
      eps: ε.
      axes: rule for the Grams of a leaf.
      exponent: p; ``None`` for 1/2k.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_roots(), decay=0.9)

    Source: Gupta, Koren and Singer (2018), algorithms 1 and 2; Anil et al. (2020).
    """
    axes = Axes() if axes is None else axes

    def refresh(like: Params, averages: Averages, roots: Frame, now: Now) -> tuple[Averages, Frame]:
        def leaf(block, mean, old):
            def root(gram, before):
                if gram is None:
                    return None
                values, vectors = eb.eigenbasis(gram)
                # Eigenvalues are at least at rounding level: inverse roots would amplify noise.
                values = jnp.maximum(values, eb.rounding(gram) * values[:, :1])
                power = jnp.asarray(_power(block, exponent), values.dtype)
                scale = (values + jnp.asarray(eps, values.dtype)) ** -power
                new = jnp.matmul(vectors * scale[:, None, :], vectors.mT, precision=eb.HIGHEST)
                return sound(new, before)

            return tuple(map(root, block.separated(mean.factors), old))

        return averages, tuple(map(leaf, axes.blocks(like), averages, roots))

    def drift(like: Params, averages: Averages, roots: Frame, damping: Scalar) -> jax.Array:
        def of_one(block, gram, root):
            shift = jnp.asarray(eps, gram.dtype) * jnp.eye(gram.shape[-1], dtype=gram.dtype)
            gram = gram + shift[None]
            times = round(1 / float(_power(block, exponent)))  # pyright: ignore[reportArgumentType]
            return eb.change(gram, jnp.linalg.matrix_power(root, times))

        def leaf(block, mean, old):
            pairs = zip(block.separated(mean.factors), old, strict=True)
            return farthest([of_one(block, g, r) for g, r in pairs if g is not None])

        return farthest(list(map(leaf, axes.blocks(like), averages, roots)))

    def operator(like: Params, averages: Averages, roots: Frame) -> Operator:
        def entries(mean):
            if mean.squares is None:
                return None
            return jnp.sqrt(mean.squares + jnp.asarray(eps, mean.squares.dtype))

        diagonals = list(map(entries, averages))
        return Kronecker(axes.blocks(like), None, inverses=roots, entries=diagonals)

    # The drift needs an integer power of the root.
    whole = exponent is None or (isinstance(exponent, float) and (1 / exponent).is_integer())
    start, measure = started(axes, without_grams), measured(axes, without_grams)
    return Structure(start, measure, operator, refresh, drift if whole else None)


@settings.checked(exponent=settings.POSITIVE)
def axis_eigen(
    eps: Scalar = 1e-6, axes: Axes | None = None, exponent: Scalar | None = None
) -> Structure:
    """``⊗ᵢ (Gᵢ + ε I)^p`` as in :func:`axis_roots`, stored as eigenbases.

    The eigenvalues ``diag(Qᵀ G Q)`` are computed at every step from the current Grams, so only the
    bases are old between refreshes. Bases come from ``eigh`` at first, and from one step of
    orthogonal iteration later.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_eigen(), decay=0.9)
    """
    axes = Axes() if axes is None else axes

    def operator(like: Params, averages: Averages, bases: Frame) -> Operator:
        def entries(block, mean, q):
            power = _power(block, exponent)
            shift = lambda d: (d + jnp.asarray(eps, d.dtype)) ** jnp.asarray(power, d.dtype)
            if mean.squares is not None:
                return shift(mean.squares)
            pairs = zip(mean.factors, q, strict=True)
            values = [None if g is None else shift(eb.rayleigh(g, b)) for g, b in pairs]
            return kr.outer(tuple(values), (block.pieces, *block.sizes))

        blocks = axes.blocks(like)
        return KroneckerEigen(blocks, bases, tuple(map(entries, blocks, averages, bases)))

    start, measure = started(axes, without_grams), measured(axes, without_grams)
    return Structure(start, measure, operator, new_bases(axes), basis_drift)


def _power(block: CutLeaf, exponent: Scalar | None) -> Scalar:
    """The power of each Gram: ``exponent``, by default ``1/2k`` for k Grams; ½ without Grams."""
    count = sum(block.factored)
    return 0.5 if not count else 0.5 / count if exponent is None else exponent
