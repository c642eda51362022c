"""Layer-wise curvature: K-FAC or EKFAC on the layers of an example's program."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import layers, settings, tree
from secondorder.curvature._base import Curvature
from secondorder.curvature._kfac import damped_inverses, eigenbases
from secondorder.curvature._layer_averages import LayerAverages
from secondorder.curvature._layer_samples import Read, layer_sample
from secondorder.curvature._running import Drift, Steps, running
from secondorder.curvature._samples import Estimator, loss_sample
from secondorder.notices import advise
from secondorder.objectives._base import is_objective, objective_of
from secondorder.objectives._chunked import Chunked
from secondorder.objectives._objective import Objective
from secondorder.tree import Params

MAX_SIZE = 8192  # a longer factor is stored as its diagonal
SHARE = 0.05  # of the parameters that may lie outside all layers without a warning

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
    averages = LayerAverages(read, eigen, reduce, max_size, inputs_only)
    return running(
        layer_sample(estimator, read),
        eigenbases(averages) if eigen else damped_inverses(averages),
        decay=decay,
        sample_every=sample_every,
        refresh_every=refresh_every,
        seed=seed,
    )


def _reader(example: Example) -> Read:
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
