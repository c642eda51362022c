"""Kinds of models: with independent examples, with real outputs, with a stored Jacobian."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import checks, tree
from secondorder.losses._base import Outputs
from secondorder.tree import Params
from secondorder.tree._gaps import has_gaps


@dataclasses.dataclass(frozen=True, eq=False)
class BatchedModel:
    """``params ↦ [model(params, example₁), …, model(params, example_N)]``, examples independent.

    With the single-example model at hand Jacobians are cheap: their rows for one example depend on
    that example alone.
    """

    model: Callable[[Params, Any], Outputs]
    examples: Any

    def __call__(self, params: Params) -> Outputs:
        return jax.vmap(self.model, in_axes=(None, 0))(params, self.examples)


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """A model with its outputs and dense Jacobian at one point.

    Attributes:
      model: the model, called at every other point.
      params: the point, recognised by identity of its arrays: comparing values would cost time.
      outputs: ``model(params)``.
      columns: the Jacobian there, the outputs' tree of arrays ``(*output.shape, n)``.
    """

    model: Callable[[Params], Outputs]
    params: Params
    outputs: Outputs
    columns: Any

    def __call__(self, params: Params) -> Outputs:
        return self.model(params)

    def is_at(self, params: Params) -> bool:
        pairs = zip(jax.tree.leaves(self.params), jax.tree.leaves(params), strict=True)
        return all(a is b for a, b in pairs)


@dataclasses.dataclass(frozen=True, eq=False)
class InParts:
    """A model with its complex outputs split into their parts."""

    model: Callable

    def __call__(self, *args: Any) -> Outputs:
        with checks.traced("An objective", "model", args):
            outputs = checks.as_arrays(self.model(*args), "An objective", integers=True)
            if has_gaps(args) and not any(map(jnp.size, jax.tree.leaves(outputs))):
                raise ValueError("The outputs are empty.")  # a gap broadcast against one column
        return tree.parts(outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """``params ↦ fn(params, *theta)``: real outputs, with derivatives in both modes."""

    fn: Callable
    theta: Any

    def __call__(self, *args: Any) -> Outputs:
        return self.fn(*args, *self.theta)


def in_parts(model: Callable) -> Callable:
    """``model`` with real outputs."""
    if isinstance(model, InParts | Opened | Known):
        return model
    if isinstance(model, BatchedModel):
        return dataclasses.replace(model, model=in_parts(model.model))
    return InParts(model)


def through(change: Callable[[Params], Params], model: Callable) -> Callable:
    """``model ∘ change``, with independent examples if ``model`` has them."""
    if isinstance(model, BatchedModel):
        inner = model.model
        return dataclasses.replace(model, model=lambda p, x: inner(change(p), x))
    return lambda p: model(change(p))
