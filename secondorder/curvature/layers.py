"""Layer statistics: what K-FAC and EKFAC keep of the inputs and sensitivities of each layer.

For a layer with inputs ``a`` (a one for the bias within) and sensitivities ``g`` of its outputs,
``vₙ = Σₜ aₙₜ ⊗ gₙₜ`` is example n's part of a sample ``v`` with ``E[v vᵀ] = B``. The block is taken as

    expand:  A = (1/NT) Σₙₜ a aᵀ,   G = Σₙₜ g gᵀ               positions t count as examples
    reduce:  A = (1/N) Σₙ ā āᵀ,     G = Σₙ (Σₜ g)(Σₜ g)ᵀ,      ā the mean over t

which is the same where T = 1, and exact there for one example, or for a linear network whose loss
has the same curvature at all of them. Factors longer than a limit are kept as diagonals, and so are
the inputs of a look-up, whose Gram is diagonal. A leaf in no layer has the Grams of the sample along
its axes; a vector, its squares.

Source: Martens and Grosse (2015); Grosse and Martens (2016) for convolutions; Eschenhagen et al.
(2023) for expand and reduce; George et al. (2018) for EKFAC.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import losses, tree
from secondorder.curvature import taps
from secondorder.curvature.base import Curvature
from secondorder.curvature.running import running
from secondorder.curvature.samples import Estimate, fisher_sample
from secondorder.curvature.structures import Now, Structure, sound
from secondorder.objective import Objective, as_objective
from secondorder.operators import kronecker as kr
from secondorder.operators.kronecker import Factors, Kronecker, KroneckerEigen, Leaf
from secondorder.tree import Params

HIGHEST = jax.lax.Precision.HIGHEST
MAX_SIZE = 8192  # a longer factor is kept as its diagonal


class Layers(NamedTuple):
    """A sample, still to be pulled back through the layers.

    Attributes:
      pull: ``cotangent ↦ (v, statistics)``, of ``taps.tapped``.
      cotangents: one tree like the outputs, or several along a leading axis.
      several: whether it is several.
    """

    pull: Callable[[Any], tuple[Params, tuple[tuple[taps.Use, ...], ...]]]
    cotangents: Any
    several: bool


class Moments(NamedTuple):
    """The averages of one block.

    Attributes:
      factors: ``A, G``, or the Grams along the axes of a leaf in no layer.
      squares: ``E[(Qᵀ v)²]`` in the block's shape, in the basis Q; ``None`` if not kept.
    """

    factors: Factors
    squares: jax.Array | None


Blocks = tuple[kr.Block, ...]
Read = Callable[[Params], taps.Layout]


def layerwise(
    example: Objective | Callable[[Params], Objective],
    estimate: Estimate | None = None,
    decay: Any = 0.95,
    every: Any = 1,
    refresh: Any = 5,
    *,
    eigen: bool = False,
    reduce: bool = False,
    max_size: int = MAX_SIZE,
    seed: int = 0,
) -> Curvature:
    """The Kronecker-factored curvature of a network, layer by layer: K-FAC's, or EKFAC's.

    Args:
      example: an objective on a batch like those to come (only shapes matter), or a function of the
        parameters that returns one. It shows how the model uses its leaves.
      estimate: ``fisher_sample()`` (default), ``ggn_sample()``, ``ggn_components()`` for all output
        components instead of a sample, or ``per_example()``, which is the empirical Fisher.
      decay: of the averages, per sample.
      every: a sample is taken at the first update and each ``every`` updates after it.
      refresh: likewise for inverses (``eigen``: eigenbases).
      eigen: keep eigenbases, and the second moments of the sample in them, as EKFAC does, instead of
        inverses that have the damping within.
      reduce: whether positions that share weights are summed before their outer products are taken.
      max_size: longer factors are kept as their diagonals.
      seed: of the random draws.

    Raises:
      TypeError: an ``example`` that is no objective.
      ValueError: an estimate that sends nothing back from the outputs; at update, a model that uses
        its parameters in another way than the example's.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.zeros((8, 2))), lambda w: jnp.ones((8, 3)) @ w)
      >>> layers = so.curvature.layerwise(f)
      >>> state = layers.init(jnp.zeros((3, 2)))
      >>> [factor.shape for factor in state.averages[0].factors]
      [(1, 3, 3), (1, 2, 2)]
    """
    estimate = fisher_sample() if estimate is None else estimate
    read = _reader(example)
    structure = _structure(read, eigen, reduce, max_size)
    return running(_layer_sample(estimate, read), structure, decay, every, refresh, seed=seed)


def _reader(example: Any) -> Read:
    """``params -> Layout``, read once for each kind of parameters."""

    def model(params):
        objective = example if isinstance(example, Objective) or not callable(example) else None
        objective = example(params) if objective is None else objective
        return as_objective(objective, "layerwise (its example)").model(params)

    @functools.cache
    def of(structure, shapes):
        structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        return taps.read(model, jax.tree.unflatten(structure, structs))

    def read(params: Params) -> taps.Layout:
        leaves, structure = jax.tree.flatten(params)
        return of(structure, tuple((jnp.shape(x), tree.leaf_dtype(x)) for x in leaves))

    return read


def _layer_sample(estimate: Estimate, read: Read) -> Estimate:
    """What ``estimate`` sends back from the outputs, to be seen at every layer on its way."""
    start = estimate.cotangents
    if start is None:
        raise ValueError(
            "Layer statistics need an estimate that is pulled back from the model's outputs: "
            "fisher_sample(), ggn_sample(), ggn_components() or per_example()."
        )

    def draw(grads: Params, params: Params, value_fn: Any, key: jax.Array) -> Layers:
        del grads
        objective = as_objective(value_fn, "layerwise")
        outputs, pull = taps.tapped(objective.model, params, read(params))
        u = start(losses.as_loss(objective.loss), outputs, key)
        pairs = zip(jax.tree.leaves(u), jax.tree.leaves(outputs), strict=True)
        several = any(jnp.ndim(x) > z.ndim for x, z in pairs)
        u = tree.cast(u, outputs)
        return Layers(pull, u if several else jax.tree.map(tree.placed_like, u, outputs), several)

    return Estimate(draw)


def _structure(read: Read, eigen: bool, reduce: bool, max_size: int) -> Structure:
    def blocks_of(like: Params) -> Blocks:
        shapes = [jnp.shape(x) for x in jax.tree.leaves(like)]
        return tuple(
            Leaf(b.leaves[0], shapes[b.leaves[0]]) if b.kind == "fallback" else b
            for b in read(like).blocks
        )

    def init(params: Params) -> tuple[Any, Any]:
        leaves, averages, frame = jax.tree.leaves(params), [], []
        for block in blocks_of(params) if leaves else ():
            dtype = tree.dtype([leaves[i] for i in block.leaves])
            stack, *axes = (1, *block.axes) if isinstance(block, Leaf) else block.shape
            whole = [_is_whole(block, axis, axes, max_size) for axis in range(len(axes))]
            zeros = tuple(
                jnp.zeros((stack, d, d) if w else (stack, d), dtype)
                for d, w in zip(axes, whole, strict=True)
            )
            eyes = tuple(
                jnp.tile(jnp.eye(d, dtype=dtype), (stack, 1, 1))
                if w
                else jnp.ones((stack, d), dtype)
                for d, w in zip(axes, whole, strict=True)
            )
            averages.append(Moments(zeros, jnp.zeros((stack, *axes), dtype) if eigen else None))
            frame.append(eyes)
        return tuple(averages), tuple(frame)

    def measure(sample: Layers, frame: Sequence[Factors]) -> tuple[Moments, ...]:
        def one(u):
            v, statistics = sample.pull(u)
            leaves, found = jax.tree.leaves(v), []
            for block, uses, kept in zip(blocks_of(v), statistics, frame, strict=True):
                bases = kept if eigen else None
                if isinstance(block, Leaf):
                    own = tree.gathered(tree.accumulator(leaves[block.index]))
                    found.append(_of_leaf(block.join([own]), kept, bases))
                else:
                    found.append(_of_uses(uses, kept, bases, reduce))
            return tuple(found)

        if not sample.several:
            return one(sample.cotangents)
        # A ⊗ Σₖ Gₖ: the first factor of a layer is a mean over the passes, all else is a sum.
        first = jax.tree.map(lambda x: x[0], sample.cotangents)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first))
        step = lambda total, u: (jax.tree.map(jnp.add, total, one(u)), None)
        total, _ = jax.lax.scan(step, zeros, sample.cotangents)
        passes = jax.tree.leaves(sample.cotangents)[0].shape[0]
        mean = lambda m: m._replace(factors=(m.factors[0] / passes, *m.factors[1:]))
        blocks = blocks_of(jax.eval_shape(sample.pull, first)[0])
        pairs = zip(blocks, total, strict=True)
        return tuple(m if isinstance(block, Leaf) else mean(m) for block, m in pairs)

    def factors_of(like: Params, averages: Sequence[Moments]) -> tuple[Factors, ...]:
        pairs = zip(blocks_of(like), averages, strict=True)
        return tuple(_scaled(m.factors) if isinstance(b, Leaf) else m.factors for b, m in pairs)

    def inverted(like: Params, averages: Any, frame: Any, now: Now) -> tuple[Any, Any]:
        pairs = zip(factors_of(like, averages), frame, strict=True)
        new = [(kr.inverses(factors, now.damping), old) for factors, old in pairs]
        return averages, tuple(jax.tree.map(sound, *both) for both in new)

    def turned(like: Params, averages: Any, frame: Any, now: Now) -> tuple[Any, Any]:
        moments, bases = [], []
        for mean, old in zip(averages, frame, strict=True):
            new = tuple(map(_basis, mean.factors, old))
            bases.append(new)
            moments.append(mean._replace(squares=_turned(mean.squares, old, new)))
        return tuple(moments), tuple(bases)

    def operator(like: Params, averages: Any, frame: Any) -> Kronecker | KroneckerEigen:
        if eigen:
            entries = [jnp.maximum(m.squares, 0) for m in averages]
            return KroneckerEigen(blocks_of(like), frame, entries)
        return Kronecker(blocks_of(like), factors_of(like, averages), frame)

    return Structure(init, measure, operator, turned if eigen else inverted, recount=eigen)


def _is_whole(block: kr.Block, axis: int, axes: Sequence[int], max_size: int) -> bool:
    """Whether the factor along an axis is a matrix, and not a diagonal."""
    looked_up = getattr(block, "kind", None) == "embedding" and axis == 0
    return len(axes) > 1 and axes[axis] <= max_size and not looked_up


def _gram(x: jax.Array, whole: bool) -> jax.Array:
    """``Σₘ xₘ xₘᵀ`` of ``(S, M, d)``: ``(S, d, d)``, or its diagonal."""
    if not whole:
        return jnp.sum(x * x, axis=1)
    return jax.lax.dot_general(x, x, (((1,), (1,)), ((0,), (0,))), precision=HIGHEST)


def _of_leaf(v: jax.Array, kept: Factors, bases: Factors | None) -> Moments:
    """The Grams of a sample along the axes of a leaf ``(1, d₁, …, d_r)``."""
    grams = []
    for axis, factor in enumerate(kept, start=1):
        rows = jnp.moveaxis(v, axis, -1).reshape(1, -1, v.shape[axis])
        grams.append(_gram(rows, factor.ndim == 3))
    squares = None if bases is None else kr.along_axes(kr.transposed(bases), v) ** 2
    return Moments(tuple(grams), squares)


def _scaled(grams: Factors) -> Factors:
    """Grams along r axes, each of trace t, as factors whose product has trace t."""
    rank = len(grams)
    if rank == 1:
        return grams
    trace = kr.mean_trace(grams[0]) * grams[0].shape[1]
    scale = jnp.where(trace > 0, trace, 1) ** ((1 - rank) / rank)
    return tuple(g * scale.reshape(-1, *[1] * (g.ndim - 1)) for g in grams)


def _rows(use: taps.Use, reduce: bool) -> tuple[jax.Array | None, jax.Array]:
    """Inputs and sensitivities ``(S, M, ·)`` over what counts as examples."""
    x, y = use.inputs, use.sensitivities
    if reduce and x is not None:
        into, out = (jnp.sum, jnp.mean) if use.transposed else (jnp.mean, jnp.sum)
        x, y = into(x, axis=2, keepdims=True), out(y, axis=2, keepdims=True)
    flat = lambda z: z.reshape(z.shape[0], -1, z.shape[-1])
    return None if x is None else flat(x), flat(y)


def _of_uses(
    uses: Sequence[taps.Use], kept: Factors, bases: Factors | None, reduce: bool
) -> Moments:
    """``A`` and ``G`` over all uses of a layer, and the squares in its bases."""
    (kept_a, kept_g), dtype = kept, kept[0].dtype
    total_a, total_g = jnp.zeros_like(kept_a), jnp.zeros_like(kept_g)
    squares = None if bases is None else jnp.zeros((*kept_a.shape[:2], kept_g.shape[1]), dtype)
    count, size = 0, None
    for use in uses:
        x, y = _rows(use, reduce)
        y = y.astype(dtype)
        count += y.shape[1]
        if x is None:
            assert use.indices is not None
            rows = use.indices.reshape(y.shape[:2])
            stack = jnp.arange(rows.shape[0])[:, None]
            a = jnp.zeros_like(total_a).at[stack, rows].add(1)
        else:
            x = x.astype(dtype)
            if use.transposed and size is not None:
                # The roles are exchanged, and so are the units: brought to those of the others.
                ratio = jnp.sqrt(size / jnp.maximum(jnp.mean(x * x), jnp.finfo(dtype).tiny))
                x, y = x * ratio, y / jnp.where(ratio > 0, ratio, 1)
            a = _gram(x, kept_a.ndim == 3)
        size = kr.mean_trace(a).mean() / y.shape[1] if size is None else size
        total_a, total_g = total_a + a, total_g + _gram(y, kept_g.ndim == 3)
        if bases is not None:
            turned = jnp.square(_in_basis(bases[1], y))
            if x is None:
                squares = squares.at[stack, rows].add(turned)
            else:
                inputs = jnp.square(_in_basis(bases[0], x))
                squares = squares + jnp.einsum("sma,smb->sab", inputs, turned, precision=HIGHEST)
    return Moments((total_a / max(count, 1), total_g), squares)


def _in_basis(basis: jax.Array, x: jax.Array) -> jax.Array:
    """``Qᵀ x`` for each of ``(S, M, d)``."""
    return x * basis[:, None] if basis.ndim == 2 else jnp.matmul(x, basis, precision=HIGHEST)


def _basis(factor: jax.Array, old: jax.Array) -> jax.Array:
    """The eigenvectors of a factor, where it has any and they are finite."""
    if factor.ndim == 2:
        return old
    size = jnp.max(jnp.abs(factor), axis=(1, 2), keepdims=True)
    return sound(jnp.linalg.eigh(factor / jnp.where(size > 0, size, 1))[1], old)


def _turned(squares: Any, old: Factors, new: Factors) -> jax.Array:
    """The diagonal of ``Q diag(s) Qᵀ`` in another basis: what is known there of the second moments."""

    def between(a: jax.Array, b: jax.Array) -> jax.Array:
        if a.ndim == 2:
            return a
        return jnp.square(jnp.matmul(b.mT, a, precision=HIGHEST))

    return kr.along_axes(tuple(map(between, old, new)), squares)
