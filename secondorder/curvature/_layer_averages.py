"""Averages over layers: the Kronecker factors of K-FAC and the squares of EKFAC, for each layer.

With inputs ``a`` (extended by a one for the bias) and sensitivities ``g`` of the outputs of a
layer, ``vₙ = Σₜ aₙₜ ⊗ gₙₜ`` is the part of example n in a sample ``v``, ``E[v vᵀ] = B``. The block
is approximated by A ⊗ G with

    expand:  A = (1/NT) Σₙₜ a aᵀ,   G = Σₙₜ g gᵀ               positions t count as examples
    reduce:  A = (1/N) Σₙ ā āᵀ,     G = Σₙ (Σₜ g)(Σₜ g)ᵀ,      ā the mean over t

For T = 1 both are the same, and exact for one example, or for a linear network whose loss has the
same curvature at all examples. A layer with several uses (a recurrent weight, a tied kernel, a loss
with derivatives of the model) has the A ⊗ G whose partial traces are those of ``Σᵤ Aᵤ ⊗ Gᵤ``, the
sum over its uses. EKFAC's second moments use the same pairs ``a, g``: one per example
for T = 1, else one per position. A factor longer than a limit is stored as its diagonal, and so is
the Gram of the inputs of a look-up, which is diagonal. A leaf outside all layers has the Grams of
the sample along its axes; a vector has its squares. A leaf that the model also returns, as for an
L2 penalty in ``losses.total``, adds the mean square ``c`` of that part of a sample: A ⊗ G + cI.
This is exact if the penalty is one number times the squares of all leaves of the layer.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import layers, tree
from secondorder.curvature import _moments as moments
from secondorder.curvature._layer_samples import InChunks, Layers, Read
from secondorder.curvature._structures import Averages, Frame, Moments
from secondorder.losses import Outputs
from secondorder.operators._axes import Leaf
from secondorder.operators._kronecker import Factors
from secondorder.tree import Params

Blocks = tuple[Leaf | layers.Block, ...]


class LayerAverages(NamedTuple):
    """Averages over layers, and over leaves outside all layers: their start and their samples.

    Attributes:
      read: ``params ->`` the layers.
      eigen, reduce, max_size, inputs_only: as in ``curvature.layerwise``.
    """

    read: Read
    eigen: bool
    reduce: bool
    max_size: int
    inputs_only: bool

    def blocks(self, like: Params) -> Blocks:
        """The blocks of the parameters: of each layer, and of each leaf outside all layers."""
        shapes = [jnp.shape(x) for x in jax.tree.leaves(like)]
        return tuple(
            Leaf(b.leaves[0], shapes[b.leaves[0]]) if b.kind == "fallback" else b
            for b in self.read(like).blocks
        )

    def init(self, params: Params) -> tuple[tuple[Moments, ...], tuple[Factors, ...]]:
        """Averages of zero, and identities as the frame."""
        leaves, averages, frame = jax.tree.leaves(params), [], []
        for block in self.blocks(params) if leaves else ():
            dtype = tree.dtype([leaves[i] for i in block.leaves])
            outside = isinstance(block, Leaf)
            stack, *axes = (1, *block.axes) if outside else block.shape
            zeros, ones = [], []
            for axis, size in enumerate(axes):
                kept = not self.inputs_only or (axis == 0 and not outside)
                whole = moments.is_whole(block, axis, axes, self.max_size)
                zero, one = _start(stack, size, whole, dtype) if kept else (None, None)
                zeros.append(zero)
                ones.append(one)
            squares = jnp.zeros((stack, *axes), dtype) if self.eigen else None
            returned = None if outside or not block.returned else jnp.zeros((), dtype)
            averages.append(Moments(tuple(zeros), squares, returned))
            frame.append(tuple(ones))
        return tuple(averages), tuple(frame)

    def measure(
        self, sample: Layers | InChunks, averages: Averages, frame: Frame
    ) -> tuple[Moments, ...]:
        """The moments of each block in a sample."""
        if isinstance(sample, InChunks):
            whole, blocks = sample.objective, self.blocks(sample.params)

            def of_chunk(part, k):
                own = self.measure(sample.draw(part, k), averages, frame)
                return _rescaled(blocks, own, whole.share(k) / whole.weight(k))

            return whole.total(of_chunk)

        one = lambda u: self._of_pass(sample.tapped, u, frame)
        if not sample.several:
            return one(sample.cotangents)
        # A ⊗ Σₖ Gₖ: the first factor of a layer is a mean over the passes, the others are sums.
        first = jax.tree.map(lambda x: x[0], sample.cotangents)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first))
        step = lambda total, u: (jax.tree.map(jnp.add, total, one(u)), None)
        total, _ = jax.lax.scan(step, zeros, sample.cotangents)
        passes = jax.tree.leaves(sample.cotangents)[0].shape[0]
        like = jax.eval_shape(sample.tapped.pull, first)[0]
        return _rescaled(self.blocks(like), total, 1 / passes)

    def _of_pass(
        self, tapped: layers.Instrumented, u: Outputs, frame: Frame
    ) -> tuple[Moments, ...]:
        """The moments of each block in one backward pass, from the cotangents ``u``."""
        v, uses_of = tapped.pull(u)
        leaves, found = jax.tree.leaves(v), []
        parts = zip(self.blocks(v), uses_of, frame, tapped.returned(u), strict=True)
        for block, uses, kept, returned in parts:
            bases = kept if self.eigen else None
            if isinstance(block, Leaf):
                own = tree.accumulator(leaves[block.index])
                found.append(moments.of_leaf(block.join([own]), kept, bases))
            else:
                own = moments.of_uses(uses, kept, bases, self.reduce)
                found.append(own._replace(returned=returned))
        return tuple(found)


def _start(stack: int, size: int, whole: bool, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Zeros and the identity, as matrices or as diagonals."""
    if not whole:
        return jnp.zeros((stack, size), dtype), jnp.ones((stack, size), dtype)
    eye = jnp.eye(size, dtype=dtype)
    return jnp.zeros((stack, size, size), dtype), jnp.tile(eye, (stack, 1, 1))


def _rescaled(blocks: Blocks, total: Averages, by: tree.Real) -> tuple[Moments, ...]:
    """``total``, with the first factor of each layer as a mean: its sum times ``by``."""
    mean = lambda m: m._replace(factors=(m.factors[0] * by, *m.factors[1:]))
    pairs = zip(blocks, total, strict=True)
    return tuple(m if isinstance(block, Leaf) else mean(m) for block, m in pairs)
