"""Layer statistics: what K-FAC and EKFAC keep of the inputs and sensitivities of each layer.

With inputs ``a`` (a one for the bias within) and sensitivities ``g`` of the outputs of a layer,
``vₙ = Σₜ aₙₜ ⊗ gₙₜ`` is example n's part of a sample ``v``, ``E[v vᵀ] = B``. The block is taken as

    expand:  A = (1/NT) Σₙₜ a aᵀ,   G = Σₙₜ g gᵀ               positions t count as examples
    reduce:  A = (1/N) Σₙ ā āᵀ,     G = Σₙ (Σₜ g)(Σₜ g)ᵀ,      ā the mean over t

which is the same where T = 1, and exact there for one example, or for a linear network whose loss
has the same curvature at all of them. EKFAC's second moments are over the same pairs ``a, g``:
those of the examples where T = 1, else of single positions. Factors longer than a limit are kept as
diagonals, and so are the inputs of a look-up, whose Gram is diagonal. A leaf in no layer has the
Grams of the sample along its axes; a vector, its squares. A leaf that the model also returns, as
for an L2 penalty in ``losses.total``, adds the mean square of that part of a sample, ``c`` in A ⊗ G
+ cI: exact where the penalty is one number times the squares of all leaves of the layer.

Source: Martens and Grosse (2015); Grosse and Martens (2016) for convolutions; Eschenhagen et al.
(2023) for expand and reduce; George et al. (2018) for EKFAC.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import layers, losses, settings, tree
from secondorder.curvature import _moments as moments
from secondorder.curvature._base import Curvature
from secondorder.curvature._moments import Moments
from secondorder.curvature._running import Drift, Steps, running
from secondorder.curvature._samples import Estimator, loss_sample
from secondorder.curvature._structures import (
    Now,
    Structure,
    farthest,
    sound,
)
from secondorder.objectives._base import is_objective, objective_of
from secondorder.objectives._chunked import Chunked
from secondorder.objectives._objective import Objective
from secondorder.operators import _axes as ax
from secondorder.operators import _kronecker as kr
from secondorder.operators._kronecker import (
    Factors,
    Kronecker,
    KroneckerEigen,
    Leaf,
)
from secondorder.tree import Params

MAX_SIZE = 8192  # a longer factor is kept as its diagonal


class InChunks(NamedTuple):
    """A sample of a chunked objective: ``draw(objective of chunk k, k)`` is that of a chunk."""

    objective: Chunked
    params: Params
    draw: Callable[[Any, jax.Array], Any]


class Layers(NamedTuple):
    """A sample, still to be pulled back through the layers.

    Attributes:
      tapped: the model's outputs, and what is pulled back of them.
      cotangents: one tree like the outputs, or several along a leading axis.
      several: whether it is several.
    """

    tapped: layers.Instrumented
    cotangents: Any
    several: bool


Blocks = tuple[Leaf | layers.Block, ...]
Read = Callable[[Params], layers.Layout]

# An objective on a batch like those to come, or a function of the parameters that returns one.
Example = Objective | Chunked | Callable[[Params], Objective | Chunked]


@settings.checked()
def layerwise(
    example: Example,
    estimator: Estimator | None = None,
    *,
    decay: tree.Real = 0.95,
    sample_every: Steps = 1,
    refresh_every: Steps | Drift = 5,
    eigen: bool = False,
    reduce: bool = False,
    max_size: int = MAX_SIZE,
    seed: int = 0,
) -> Curvature:
    """The Kronecker-factored curvature of a network, layer by layer: K-FAC's, or EKFAC's.

    Args:
      example: an objective on a batch like those to come (only shapes matter), or a function of the
        parameters that returns one. It shows how the model uses its leaves.
      estimator: ``loss_sample()`` (default), ``fisher_sample()``, ``ggn_sample()``,
        ``ggn_components()`` for all output components instead of a sample, or ``per_example()``,
        which is the empirical Fisher.
      decay: of the averages, per sample.
      sample_every: updates from one sample to the next; the first update takes one.
      refresh_every: updates from one computation of the inverses (``eigen``: of the eigenbases) to
        the next; or ``curvature.drift(0.1)``, where the factors, or λ, have moved away from them.
      eigen: keep eigenbases, and the second moments of the sample in them, as EKFAC does, instead
        of inverses that have the damping within. A refresh is one orthogonal iteration from the
        bases before.
      reduce: whether positions that share weights are summed before their outer products are taken.
      max_size: longer factors are kept as their diagonals.
      seed: of the random draws.

    Raises:
      TypeError: an ``example`` that is no objective.
      ValueError: an estimator that sends nothing back from the outputs; at update, a model that
        uses its parameters in another way than the example's.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.zeros((8, 2))), lambda w: jnp.ones((8, 3)) @ w)
      >>> layers = so.curvature.layerwise(f)
      >>> state = layers.init(jnp.zeros((3, 2)))
      >>> [factor.shape for factor in state.averages[0].factors]
      [(1, 3, 3), (1, 2, 2)]
    """
    estimator = loss_sample() if estimator is None else estimator
    read = _reader(example)
    structure = _structure(read, eigen, reduce, max_size)
    return running(
        _layer_sample(estimator, read),
        structure,
        decay=decay,
        sample_every=sample_every,
        refresh_every=refresh_every,
        seed=seed,
    )


def _reader(example: Any) -> Read:
    """``params -> Layout``, read once for each kind of parameters."""

    def model(params):
        shown: Any = example
        if callable(example) and not is_objective(example):
            shown = example(params)
        return objective_of(shown).first_part().split("layerwise (its example)").model(params)

    @functools.cache
    def of(structure, shapes):
        structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        return layers.read(model, jax.tree.unflatten(structure, structs))

    def read(params: Params) -> layers.Layout:
        leaves, structure = jax.tree.flatten(params)
        return of(structure, tuple((jnp.shape(x), tree.leaf_dtype(x)) for x in leaves))

    return read


def _layer_sample(estimator: Estimator, read: Read) -> Estimator:
    """What ``estimator`` sends back from the outputs, to be seen at every layer on its way."""
    start = estimator.cotangents
    if start is None:
        raise ValueError(
            "Layer statistics need an estimator that is pulled back from the model's outputs: "
            "fisher_sample(), ggn_sample(), ggn_components() or per_example()."
        )

    def draw(grads: Params, params: Params, value_fn: Any, key: jax.Array) -> Layers | InChunks:
        part = lambda f, k: draw(grads, params, f, jax.random.fold_in(key, k))
        return objective_of(value_fn).by_parts(
            lambda whole: of(whole.split("layerwise"), params, key),
            lambda chunks: InChunks(chunks, params, part),
        )

    def of(objective: Objective, params: Params, key: Any) -> Layers:
        tapped = layers.instrumented(objective.model, params, read(params))
        outputs = tapped.outputs
        u = start(losses.as_loss(objective.loss), outputs, key)
        pairs = zip(jax.tree.leaves(u), jax.tree.leaves(outputs), strict=True)
        several = any(jnp.ndim(x) > z.ndim for x, z in pairs)
        u = tree.cast(u, outputs)
        return Layers(tapped, u if several else jax.tree.map(tree.placed_like, u, outputs), several)

    return Estimator(draw)


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
            whole = [moments.is_whole(block, axis, axes, max_size) for axis in range(len(axes))]
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
            squares = jnp.zeros((stack, *axes), dtype) if eigen else None
            own = None if isinstance(block, Leaf) or not block.returned else jnp.zeros((), dtype)
            averages.append(Moments(zeros, squares, own))
            frame.append(eyes)
        return tuple(averages), tuple(frame)

    def rescaled(blocks: Blocks, total: Sequence[Moments], by: Any) -> tuple[Moments, ...]:
        """The first factor of a layer is a mean over all that is added, else it is a sum."""
        mean = lambda m: m._replace(factors=(m.factors[0] * by, *m.factors[1:]))
        pairs = zip(blocks, total, strict=True)
        return tuple(m if isinstance(block, Leaf) else mean(m) for block, m in pairs)

    def measure(sample: Layers | InChunks, frame: Sequence[Factors]) -> tuple[Moments, ...]:
        if isinstance(sample, InChunks):
            whole, blocks = sample.objective, blocks_of(sample.params)

            def of_chunk(part, k):
                own = measure(sample.draw(part, k), frame)
                return rescaled(blocks, own, whole.share(k) / whole.weight(k))

            return whole.total(of_chunk)

        def one(u):
            v, statistics = sample.tapped.pull(u)
            leaves, found = jax.tree.leaves(v), []
            parts = zip(blocks_of(v), statistics, frame, sample.tapped.returned(u), strict=True)
            for block, uses, kept, returned in parts:
                bases = kept if eigen else None
                if isinstance(block, Leaf):
                    own = tree.gathered(tree.accumulator(leaves[block.index]))
                    found.append(moments.of_leaf(block.join([own]), kept, bases))
                else:
                    own = moments.of_uses(uses, kept, bases, reduce)
                    found.append(own._replace(returned=returned))
            return tuple(found)

        if not sample.several:
            return one(sample.cotangents)
        # A ⊗ Σₖ Gₖ: the first factor of a layer is a mean over the passes, all else is a sum.
        first = jax.tree.map(lambda x: x[0], sample.cotangents)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first))
        step = lambda total, u: (jax.tree.map(jnp.add, total, one(u)), None)
        total, _ = jax.lax.scan(step, zeros, sample.cotangents)
        passes = jax.tree.leaves(sample.cotangents)[0].shape[0]
        return rescaled(blocks_of(jax.eval_shape(sample.tapped.pull, first)[0]), total, 1 / passes)

    def factors_of(like: Params, averages: Sequence[Moments]) -> tuple[Factors, ...]:
        pairs = zip(blocks_of(like), averages, strict=True)
        return tuple(
            moments.scaled(m.factors) if isinstance(b, Leaf) else m.factors for b, m in pairs
        )

    def inverted(like: Params, averages: Any, frame: Any, now: Now) -> tuple[Any, Any]:
        parts = zip(factors_of(like, averages), averages, frame, strict=True)
        new = [(kr.inverses(f, m.with_returned(now.damping)), old) for f, m, old in parts]
        return averages, tuple(jax.tree.map(sound, *both) for both in new)

    def turned(like: Params, averages: Any, frame: Any, now: Now) -> tuple[Any, Any]:
        means, bases = [], []
        for mean, old in zip(averages, frame, strict=True):
            new = tuple(map(moments.basis, mean.factors, old))
            bases.append(new)
            means.append(mean._replace(squares=moments.turned(mean.squares, old, new)))
        return tuple(means), tuple(bases)

    def drift(like: Params, averages: Any, frame: Any, damping: Any) -> jax.Array:
        if eigen:
            factors = jax.tree.leaves([m.factors for m in averages])
            pairs = zip(factors, jax.tree.leaves(frame), strict=True)
            return farthest([ax.off_diagonal(f, q) for f, q in pairs if f.ndim == 3])
        parts = zip(frame, factors_of(like, averages), averages, strict=True)
        return farthest(
            [d for q, f, m in parts for d in kr.residuals(q, f, m.with_returned(damping))]
        )

    def operator(like: Params, averages: Any, frame: Any) -> Kronecker | KroneckerEigen:
        if eigen:
            entries = [m.with_returned(jnp.maximum(m.squares, 0)) for m in averages]
            return KroneckerEigen(blocks_of(like), frame, entries)
        shifts = [m.with_returned(0.0) for m in averages]
        return Kronecker(blocks_of(like), factors_of(like, averages), frame, shifts)

    refresh = turned if eigen else inverted
    return Structure(init, measure, operator, refresh, drift, recount=eigen)
