"""Layer statistics: the Kronecker factors of K-FAC and EKFAC for each layer.

With inputs ``a`` (extended by a one for the bias) and sensitivities ``g`` of the outputs of a
layer, ``vₙ = Σₜ aₙₜ ⊗ gₙₜ`` is the part of example n in a sample ``v``, ``E[v vᵀ] = B``. The block
is approximated by A ⊗ G with

    expand:  A = (1/NT) Σₙₜ a aᵀ,   G = Σₙₜ g gᵀ               positions t count as examples
    reduce:  A = (1/N) Σₙ ā āᵀ,     G = Σₙ (Σₜ g)(Σₜ g)ᵀ,      ā the mean over t

For T = 1 both are the same, and exact for one example, or for a linear network whose loss has the
same curvature at all examples. EKFAC's second moments use the same pairs ``a, g``: one per example
for T = 1, else one per position. A factor longer than a limit is stored as its diagonal, and so is
the Gram of the inputs of a look-up, which is diagonal. A leaf outside all layers has the Grams of
the sample along its axes; a vector has its squares. A leaf that the model also returns, as for an
L2 penalty in ``losses.total``, adds the mean square ``c`` of that part of a sample: A ⊗ G + cI.
This is exact if the penalty is one number times the squares of all leaves of the layer.

Source: Martens and Grosse (2015); Grosse and Martens (2016) for convolutions; Eschenhagen et al.
(2023) for expand and reduce; George et al. (2018) for EKFAC.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import layers, losses, meshes, settings, tree
from secondorder.curvature import _moments as moments
from secondorder.curvature._base import Curvature
from secondorder.curvature._running import Drift, Steps, running
from secondorder.curvature._samples import Estimator, loss_sample
from secondorder.curvature._structures import Moments, Now, Structure, basis_drift, farthest, sound
from secondorder.notices import advise
from secondorder.objectives._base import is_objective, objective_of
from secondorder.objectives._chunked import Chunked
from secondorder.objectives._objective import Objective
from secondorder.operators import _kronecker as kr
from secondorder.operators._axes import Leaf
from secondorder.operators._kronecker import Factors, Kronecker, KroneckerEigen
from secondorder.tree import Params

MAX_SIZE = 8192  # a longer factor is stored as its diagonal
SHARE = 0.05  # of the parameters that may lie outside all layers without a warning


class InChunks(NamedTuple):
    """A sample of a chunked objective: ``draw(objective of chunk k, k)`` for each chunk."""

    objective: Chunked
    params: Params
    draw: Callable[[Any, jax.Array], Any]


class Layers(NamedTuple):
    """A sample before its backward pass through the layers.

    Attributes:
      tapped: the model's outputs and their backward pass.
      cotangents: one tree like the outputs, or several along a leading axis.
      several: whether there are several.
    """

    tapped: layers.Instrumented
    cotangents: Any
    several: bool


Blocks = tuple[Leaf | layers.Block, ...]
Read = Callable[[Params], layers.Layout]

# An example objective (only its shapes are used), or a function of the parameters that returns one.
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
    inputs_only: bool = False,
    seed: int = 0,
) -> Curvature:
    """Kronecker-factored curvature ``⊕ A ⊗ G`` of a network, by layer: K-FAC or EKFAC.

    Args:
      example: an example objective on a batch (only its shapes are used), or a function of the
        parameters that returns one. Its program defines the layers.
      estimator: ``loss_sample()`` (default), ``fisher_sample()``, ``ggn_sample()``,
        ``ggn_components()`` for all output components instead of a sample, or ``per_example()``
        for the empirical Fisher.
      decay: decay of the averages, per sample.
      sample_every: updates from one sample to the next, starting at the first update.
      refresh_every: updates from one computation of the inverses (with ``eigen``, the eigenbases)
        to the next; or ``curvature.drift(0.1)`` to refresh after a change of the factors or λ.
      eigen: True for eigenbases and the second moments of the sample in them (EKFAC), instead of
        damped inverses. A refresh is one orthogonal iteration from the last bases.
      reduce: whether positions that share weights are summed before the outer products.
      max_size: longer factors are stored as their diagonals.
      inputs_only: True for ``A + λ (tr A/d) I`` of each layer with ``G = I``, as in Newton-Muon,
        and the identity outside all layers; λ has no unit then.
      seed: seed of the random draws.

    Raises:
      TypeError: an ``example`` that is not an objective.
      ValueError: an estimator without cotangents of the outputs; both ``eigen`` and
        ``inputs_only``; at update, a model that uses its parameters in another way than the
        example.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.zeros((8, 2))), lambda w: jnp.ones((8, 3)) @ w)
      >>> layers = so.curvature.layerwise(f)
      >>> state = layers.init(jnp.zeros((3, 2)))
      >>> [factor.shape for factor in state.averages[0].factors]
      [(1, 3, 3), (1, 2, 2)]
    """
    if eigen and inputs_only:
        raise ValueError(
            "layerwise got both eigen=True and inputs_only=True. Pass one of the two: second "
            "moments in eigenbases need the sensitivities of the outputs."
        )
    estimator = loss_sample() if estimator is None else estimator
    read = _reader(example)
    structure = _structure(_Statistics(read, eigen, reduce, max_size, inputs_only))
    return running(
        _layer_sample(estimator, read),
        structure,
        decay=decay,
        sample_every=sample_every,
        refresh_every=refresh_every,
        seed=seed,
    )


def _advise(layout: layers.Layout, sizes: list[int]) -> None:
    """Warn of leaves outside all layers that hold a good part of the parameters."""
    lost = [block for block in layout.blocks if block.kind == "fallback"]
    held, total = sum(sizes[leaf] for block in lost for leaf in block.leaves), sum(sizes)
    if held <= SHARE * total:
        return
    first = layout.paths[lost[0].leaves[0]]
    advise(
        f"fallback {layout.paths}",
        f"The layer-wise curvature found no layer for {len(lost)} of {len(sizes)} leaves, "
        f"{100 * held / total:.0f} % of the parameters; the first is {first}: {lost[0].reason}. "
        "They get the Grams along their axes, which is less. Write their uses as products with "
        "them, or leave them to another method; so.layer_table(objective, params) lists all.",
        "faq",
    )


def _reader(example: Any) -> Read:
    """``params -> Layout``, cached by the shapes and dtypes of the parameters."""

    def model(params):
        shown: Any = example
        if callable(example) and not is_objective(example):
            shown = example(params)
        return objective_of(shown).first_part().split("layerwise (its example)").model(params)

    @functools.cache
    def of(structure, shapes):
        structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        layout = layers.read(model, jax.tree.unflatten(structure, structs))
        _advise(layout, [math.prod(shape) for shape, _ in shapes])
        return layout

    def read(params: Params) -> layers.Layout:
        leaves, structure = jax.tree.flatten(params)
        return of(structure, tuple((jnp.shape(x), tree.leaf_dtype(x)) for x in leaves))

    return read


def _layer_sample(estimator: Estimator, read: Read) -> Estimator:
    """An estimator with the cotangents of ``estimator``, recorded at every layer."""
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
        return Layers(
            tapped, u if several else jax.tree.map(meshes.placed_like, u, outputs), several
        )

    return Estimator(draw)


class _Statistics(NamedTuple):
    """Settings of the layer statistics.

    Attributes:
      read, eigen, reduce, max_size, inputs_only: as in :func:`layerwise`, with ``read`` of
        :func:`_reader`.
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

    def factors(self, like: Params, averages: Sequence[Moments]) -> tuple[Factors, ...]:
        """The factors of each block, from the averages."""
        pairs = zip(self.blocks(like), averages, strict=True)
        own = not self.inputs_only  # else a leaf outside all layers has none
        return tuple(
            moments.scaled(m.factors) if own and isinstance(b, Leaf) else m.factors
            for b, m in pairs
        )

    def damping(self, factors: Factors, mean: Moments, damping: Any) -> Any:
        """λ of a block; of inputs alone, in the units of their Gram."""
        if self.inputs_only and factors[0] is not None:
            damping = damping * kr.mean_trace(factors[0])
        return mean.with_returned(damping)


def _structure(statistics: _Statistics) -> Structure:
    own = lambda fn: functools.partial(fn, statistics)
    measure = lambda sample, averages, frame: _measure(statistics, sample, frame)
    if statistics.eigen:
        return Structure(own(_start), measure, own(_eigen), _turned, basis_drift, recount="first")
    refresh, drift = own(_inverted), own(_inverse_drift)
    return Structure(own(_start), measure, own(_kronecker), refresh, drift)


def _start(statistics: _Statistics, params: Params) -> tuple[Any, Any]:
    """Averages of zero, and identities as the frame."""
    leaves, averages, frame = jax.tree.leaves(params), [], []
    for block in statistics.blocks(params) if leaves else ():
        dtype = tree.dtype([leaves[i] for i in block.leaves])
        stack, *axes = (1, *block.axes) if isinstance(block, Leaf) else block.shape
        count, limit = range(len(axes)), statistics.max_size
        whole = [moments.is_whole(block, axis, axes, limit) for axis in count]
        zeros = tuple(
            jnp.zeros((stack, d, d) if w else (stack, d), dtype)
            for d, w in zip(axes, whole, strict=True)
        )
        eyes = tuple(
            jnp.tile(jnp.eye(d, dtype=dtype), (stack, 1, 1)) if w else jnp.ones((stack, d), dtype)
            for d, w in zip(axes, whole, strict=True)
        )
        if statistics.inputs_only:
            inputs = not isinstance(block, Leaf)
            alone = lambda x, inputs=inputs: (x[0] if inputs else None, *(None for _ in x[1:]))
            zeros, eyes = alone(zeros), alone(eyes)
        squares = jnp.zeros((stack, *axes), dtype) if statistics.eigen else None
        returned = None if isinstance(block, Leaf) or not block.returned else jnp.zeros((), dtype)
        averages.append(Moments(zeros, squares, returned))
        frame.append(eyes)
    return tuple(averages), tuple(frame)


def _measure(
    statistics: _Statistics, sample: Layers | InChunks, frame: Sequence[Factors]
) -> tuple[Moments, ...]:
    """The moments of each block in a sample."""
    if isinstance(sample, InChunks):
        whole, blocks = sample.objective, statistics.blocks(sample.params)

        def of_chunk(part, k):
            own = _measure(statistics, sample.draw(part, k), frame)
            return _rescaled(blocks, own, whole.share(k) / whole.weight(k))

        return whole.total(of_chunk)

    one = lambda u: _of_pass(statistics, sample.tapped, u, frame)
    if not sample.several:
        return one(sample.cotangents)
    # A ⊗ Σₖ Gₖ: the first factor of a layer is a mean over the passes, the others are sums.
    first = jax.tree.map(lambda x: x[0], sample.cotangents)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first))
    step = lambda total, u: (jax.tree.map(jnp.add, total, one(u)), None)
    total, _ = jax.lax.scan(step, zeros, sample.cotangents)
    passes = jax.tree.leaves(sample.cotangents)[0].shape[0]
    like = jax.eval_shape(sample.tapped.pull, first)[0]
    return _rescaled(statistics.blocks(like), total, 1 / passes)


def _of_pass(
    statistics: _Statistics, tapped: layers.Instrumented, u: Any, frame: Sequence[Factors]
) -> tuple[Moments, ...]:
    """The moments of each block in one backward pass, from the cotangents ``u``."""
    v, uses_of = tapped.pull(u)
    leaves, found = jax.tree.leaves(v), []
    parts = zip(statistics.blocks(v), uses_of, frame, tapped.returned(u), strict=True)
    for block, uses, kept, returned in parts:
        bases = kept if statistics.eigen else None
        if isinstance(block, Leaf):
            own = tree.accumulator(leaves[block.index])
            found.append(moments.of_leaf(block.join([own]), kept, bases))
        else:
            own = moments.of_uses(uses, kept, bases, statistics.reduce)
            found.append(own._replace(returned=returned))
    return tuple(found)


def _rescaled(blocks: Blocks, total: Sequence[Moments], by: Any) -> tuple[Moments, ...]:
    """``total``, with the first factor of each layer as a mean: its sum times ``by``."""
    mean = lambda m: m._replace(factors=(m.factors[0] * by, *m.factors[1:]))
    pairs = zip(blocks, total, strict=True)
    return tuple(m if isinstance(block, Leaf) else mean(m) for block, m in pairs)


def _kronecker(statistics: _Statistics, like: Params, averages: Any, frame: Any) -> Kronecker:
    """The operator of K-FAC, with the inverses of the frame."""
    factors, shifts = statistics.factors(like, averages), [m.with_returned(0.0) for m in averages]
    return Kronecker(statistics.blocks(like), factors, frame, shifts)


def _inverted(
    statistics: _Statistics, like: Params, averages: Any, frame: Any, now: Now
) -> tuple[Any, Any]:
    """Refresh of the damped inverses; a failed factorisation keeps the old ones."""
    parts = zip(statistics.factors(like, averages), averages, frame, strict=True)
    damping = functools.partial(statistics.damping, damping=now.damping)
    new = [(kr.inverses(f, damping(f, m)), old) for f, m, old in parts]
    return averages, tuple(jax.tree.map(sound, *both) for both in new)


def _inverse_drift(
    statistics: _Statistics, like: Params, averages: Any, frame: Any, damping: Any
) -> jax.Array:
    """The largest relative error of an inverse."""
    parts = zip(frame, statistics.factors(like, averages), averages, strict=True)
    own = functools.partial(statistics.damping, damping=damping)
    return farthest([d for q, f, m in parts for d in kr.residuals(q, f, own(f, m))])


def _eigen(statistics: _Statistics, like: Params, averages: Any, frame: Any) -> KroneckerEigen:
    """The operator of EKFAC: the second moments in the bases of the frame."""
    entries = [m.with_returned(jnp.maximum(m.squares, 0)) for m in averages]
    return KroneckerEigen(statistics.blocks(like), frame, entries)


def _turned(like: Params, averages: Any, frame: Any, now: Now) -> tuple[Any, Any]:
    """Refresh of the eigenbases, with the second moments rotated into them."""
    means, bases = [], []
    for mean, old in zip(averages, frame, strict=True):
        new = tuple(map(moments.basis, mean.factors, old))
        bases.append(new)
        means.append(mean._replace(squares=moments.turned(mean.squares, old, new)))
    return tuple(means), tuple(bases)
