"""Grams along the axes of each leaf: their start, those of a sample, and their eigenbases."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.curvature._samples import Sample
from secondorder.curvature._structures import Averages, Frame, Moments, Now, sound
from secondorder.operators import _eigenbases as eb
from secondorder.operators import _kronecker as kr
from secondorder.operators._axes import Axes, CutLeaf
from secondorder.operators._kronecker import Factors
from secondorder.tree import Params


def started(axes: Axes, squares: Callable[[CutLeaf], bool]) -> Callable:
    """``init`` of a structure along the axes: zeros, and identities as the frame."""

    def leaf(block: CutLeaf, x: jax.Array) -> tuple[Moments, Factors]:
        dtype = tree.accumulation_dtype(tree.leaf_dtype(x))
        factors = block.square(lambda n, b: jnp.zeros((n, b, b), dtype))
        eyes = block.square(lambda n, b: jnp.tile(jnp.eye(b, dtype=dtype), (n, 1, 1)))
        if not squares(block):
            return Moments(factors, None), eyes
        if not any(block.factored):
            return Moments(factors, jnp.zeros_like(x, dtype)[None]), eyes  # sharded like the leaf
        return Moments(factors, jnp.zeros((block.pieces, *block.sizes), dtype)), eyes

    def init(params: Params) -> tuple[Averages, Frame]:
        pairs = list(map(leaf, axes.blocks(params), jax.tree.leaves(params)))
        return tuple(mean for mean, _ in pairs), tuple(eyes for _, eyes in pairs)

    return init


def measured(axes: Axes, squares: Callable[[CutLeaf], bool]) -> Callable:
    """``measure`` of a structure along the axes; squares in the basis of the frame, if any."""

    def leaf(block: CutLeaf, v: jax.Array, w: jax.Array, frame: Factors) -> Moments:
        v, w = block.join([v]), block.join([w])
        factors = kr.grams(frame, v, w)
        if not squares(block):
            return Moments(factors, None)
        qt = kr.transposed(frame)
        return Moments(factors, kr.along_axes(qt, v) * kr.along_axes(qt, w))

    def measure(sample: Sample, averages: Averages, frame: Frame) -> tuple[Moments, ...]:
        v, w = map(jax.tree.leaves, sample)
        return tuple(map(leaf, axes.blocks(sample[0]), v, w, frame))

    return measure


def without_grams(block: CutLeaf) -> bool:
    return not any(block.factored)


def new_bases(axes: Axes) -> Callable:
    """``refresh`` of a structure of eigenbases; the averages stay as they are."""

    def refresh(like: Params, averages: Averages, bases: Frame, now: Now) -> tuple[Averages, Frame]:
        def basis(gram: jax.Array | None, q: jax.Array | None) -> jax.Array | None:
            if gram is None or q is None:
                return None
            return sound(jax.lax.cond(now.first, eb.first_basis, eb.next_basis, gram, q), q)

        def leaf(block: CutLeaf, mean: Moments, old: Factors) -> Factors:
            return tuple(map(basis, block.separated(mean.factors), old))

        return averages, tuple(map(leaf, axes.blocks(like), averages, bases))

    return refresh
