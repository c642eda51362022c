"""Samples of layer statistics: the cotangents of a sampled loss, recorded at every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import layers, losses, meshes, tree
from secondorder.curvature._samples import Estimator
from secondorder.losses import Outputs
from secondorder.objectives._base import objective_of
from secondorder.objectives._chunked import Chunked
from secondorder.objectives._objective import Objective
from secondorder.tree import Params

Read = Callable[[Params], layers.Layout]


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
    cotangents: Outputs
    several: bool


def layer_sample(estimator: Estimator, read: Read) -> Estimator:
    """An estimator with the cotangents of ``estimator``, recorded at every layer."""
    start = estimator.cotangents
    if start is None:
        raise ValueError(
            "Layer statistics need an estimator that is pulled back from the model's outputs: "
            "fisher_sample(), ggn_sample(), ggn_components() or per_example()."
        )

    def draw(
        grads: Params, params: Params, value_fn: Callable, key: jax.Array
    ) -> Layers | InChunks:
        part = lambda f, k: draw(grads, params, f, jax.random.fold_in(key, k))
        return objective_of(value_fn).by_parts(
            lambda whole: of(whole.split("layerwise"), params, key),
            lambda chunks: InChunks(chunks, params, part),
        )

    def of(objective: Objective, params: Params, key: jax.Array) -> Layers:
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
