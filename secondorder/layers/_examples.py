"""The program of one example, derived from a program of independent examples.

A function such as ``jax.vmap(residual)(x)`` is one program of all examples, in which cotangents of
single rows are dense. Each row of its outputs is followed back through the program to the parts of
the data that it is made of; the operations on these parts are the program of one example. Where an
operation mixes examples there is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder.layers._frames import Frame, Run
from secondorder.layers._inner_frames import KINDS
from secondorder.layers._jaxpr import opened
from secondorder.layers._slices import Cut, Part, Together
from secondorder.tree import Params, size

MOST = 8  # pieces of concatenated outputs
SHARED = 4  # limit of what all examples share, as a multiple of the parameters


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of the outputs' leading axis.

    Attributes:
      model: ``(params, example) ↦`` the outputs of one example, a list of leaves.
      examples: arrays with the examples along their first axis.
    """

    model: Callable[[Params, Any], list[jax.Array]]
    examples: list[jax.Array]


def examples_of(fn: Callable[[Params], Any], params: Params) -> list[Piece] | None:
    """Pieces that make up the outputs along their leading axis, or ``None``.

    ``None`` where the outputs have no common leading axis, an operation mixes the examples, or the
    examples share more than :data:`SHARED` times the parameters, which would be differentiated
    again for each example.

    Args:
      fn: ``params ↦`` a tree of arrays, closing over its data.
      params: arrays.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from secondorder.layers import examples_of
      >>> x, w = jnp.arange(6.0).reshape(3, 2), jnp.ones(2)
      >>> (piece,) = examples_of(lambda w: jnp.tanh(x @ w), w)
      >>> [e.shape for e in piece.examples]
      [(3, 2), (3,)]
    """
    leaves, structure = jax.tree.flatten(params)
    flat = lambda *xs: jax.tree.leaves(fn(jax.tree.unflatten(structure, xs)))
    jaxpr, constants = opened(jax.make_jaxpr(flat)(*leaves))
    lengths = {v.aval.shape[:1] for v in jaxpr.outvars}
    if jaxpr.effects or len(lengths) != 1 or () in lengths or not size(params):
        return None
    ((length,),) = lengths
    parts = [Part(0, 0, length)] if length else []
    found: list[Piece] = []
    while parts:
        part = parts.pop(0)
        frame = Frame(jaxpr, [True] * len(leaves), budget=SHARED * size(params), kinds=KINDS)
        frame.constants = dict(zip(jaxpr.constvars, constants, strict=True))
        try:
            for v in jaxpr.outvars:
                frame.plan(v, part)
        except Together:
            return None
        except Cut as cut:
            ends = [*sorted(set(cut.places)), part.length]
            starts = [0, *ends[:-1]]
            pairs = zip(starts, ends, strict=True)
            parts = [Part(0, part.start + a, b - a) for a, b in pairs] + parts
            if len(parts) + len(found) > MOST:
                return None
            continue
        found.append(_piece(frame, part))
    return found


def _piece(frame: Frame, part: Part) -> Piece:
    """The piece of a planned part."""
    keys = list(frame.found)

    def model(params: Params, example: list[jax.Array]) -> list[jax.Array]:
        given = dict(zip(keys, example, strict=False))
        run = Run(jax.tree.leaves(params), given)
        return [jnp.squeeze(frame.value(run, v, part), 0) for v in frame.jaxpr.outvars]

    # The numbers give vmap an axis where the rows need no data.
    numbers = jnp.arange(part.start, part.start + part.length, dtype=jnp.float32)
    return Piece(model, [*frame.found.values(), numbers])
