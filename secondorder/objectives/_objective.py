"""Objectives ``f = loss ∘ model``, which are themselves the ``value_fn``; fixed parameters."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import checks, losses
from secondorder.objectives._base import AnyObjective, objective_of
from secondorder.objectives._models import BatchedModel, Outputs, in_parts, through
from secondorder.tree import Params
from secondorder.tree._gaps import filled


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, so that it may be jitted
class Objective(AnyObjective):
    """``f(params) = loss(model(params))``, called like any function of the parameters.

    Optax passes ``value_fn`` to every optimizer, so it carries the split into loss and model:
    Hessian methods call it, Gauss-Newton methods use its parts. Build it within the jitted step
    (functions cannot cross a ``jit`` boundary); it is deliberately not a pytree.

    Complex outputs of the model are split into :class:`secondorder.tree.Parts`, two real outputs
    each, so that ``½ Σ |r|²`` is a sum of squares like any other. A plain function as the loss gets
    the complex outputs.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.losses.half_sum_of_squares(), lambda p: p - 1.0)
      >>> isinstance(f, so.Objective), f(jnp.zeros(2)).item()
      (True, 1.0)
    """

    loss: Callable[[Outputs], jax.Array]
    model: Callable[[Params], Outputs]

    is_split = True

    def __post_init__(self):
        object.__setattr__(self, "loss", losses.as_loss(self.loss))
        object.__setattr__(self, "model", in_parts(self.model))

    def __call__(self, params: Params) -> jax.Array:
        return checks.as_number(self.loss(self.model(params)), "compose", "loss")

    def before(self, change: Callable[[Params], Params]) -> Objective:
        return dataclasses.replace(self, model=through(change, self.model))

    def split(self, user: str) -> Objective:
        del user
        return self


def compose(loss: Callable[[Outputs], jax.Array], model: Callable[[Params], Outputs]) -> Objective:
    """The objective ``f(params) = loss(model(params))``.

    Args:
      loss: one of the library's losses (closed-form curvature) or any scalar function of the
        outputs.
      model: ``params ↦ outputs``, closing over its batch. Outputs may be complex: their real and
        imaginary parts are outputs of their own. Parameters are real.

    Raises:
      TypeError: where either is not callable.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.array([1.0, 2.0])), lambda p: p * jnp.ones(2))
      >>> float(f(jnp.array(0.0)))
      1.25
    """
    _check_callable("compose", loss=loss, model=model)
    return Objective(loss, model)


def per_example(
    loss: Callable[[Outputs], jax.Array],
    model: Callable[[Params, Any], Outputs],
    examples: Any,
) -> Objective:
    """The objective ``loss([model(params, x) for x in examples])``, batched by ``vmap``.

    The same numbers as :func:`compose` with a closed-over batch, but with independent examples: a
    dense Jacobian costs one batched backward pass per output *component* of one example instead of
    one full pass per row.

    Args:
      loss: a loss of the stacked outputs (leading axis: examples).
      model: ``(params, example) ↦ outputs`` of *one* example.
      examples: pytree of arrays with one common leading axis.

    Raises:
      TypeError: where ``loss`` or ``model`` is not callable.
      ValueError: where the leading axes of ``examples`` differ.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x, y = jnp.arange(3.0), jnp.array([0.0, 2.0, 4.0])
      >>> f = so.per_example(so.squared_error(y), lambda p, x: p * x, x)
      >>> float(f(jnp.array(2.0)))
      0.0
    """
    _check_callable("per_example", loss=loss, model=model)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    if not shapes or any(not s or s[0] != shapes[0][0] for s in shapes):
        raise ValueError(
            "per_example needs examples to be arrays with one common leading axis (one entry per "
            f"example), but their shapes are {shapes}."
        )
    return Objective(loss, BatchedModel(model, examples))


def sum_of_squares(residual: Callable[[Params], Outputs]) -> Objective:
    """``f(params) = ½ Σ |residual(params)|²``, the objective of nonlinear least squares.

    Args:
      residual: ``params ↦`` array or pytree of arrays, real or complex.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.sum_of_squares(lambda p: jnp.stack([p, 2 * p]))(jnp.array(1.0)))
      2.5
    """
    _check_callable("sum_of_squares", residual=residual)
    return Objective(losses.half_sum_of_squares(), residual)


def restrict(value_fn: Callable, params: Params, mask: Params = None) -> Callable:
    """``value_fn`` as a function of the unmasked parameters alone, the others fixed at ``params``.

    ``optax.masked`` and ``optax.partition`` pass their inner transformation a tree in which the
    leaves of other groups are ``optax.MaskedNode()``. The restricted function takes such a tree,
    fills every gap from ``params`` and calls ``value_fn``; it keeps the loss/model split. One
    restricted function therefore serves every group of a partition.

    Args:
      value_fn: a function of the full tree, or an :class:`Objective`.
      params: the full tree, source of the fixed leaves.
      mask: optional tree of booleans (or a prefix, or a callable of ``params``, as in
        ``optax.masked``); leaves where it is false are fixed at ``params`` even if given.

    Example:
      >>> import jax, jax.numpy as jnp, optax, secondorder as so
      >>> params = {"w": jnp.array(2.0), "b": jnp.array(1.0)}
      >>> f = so.restrict(lambda p: p["w"] * p["b"], params)
      >>> jax.grad(f)({"w": jnp.array(2.0), "b": optax.MaskedNode()})["w"].item()
      1.0
    """
    mask = mask(params) if callable(mask) else mask
    if mask is not None:
        mask = jax.tree.map(lambda m, p: jax.tree.map(lambda _: m, p), mask, params)

    def fill(given: Params) -> Params:
        whole = filled(given, params)
        if mask is None:
            return whole
        return jax.tree.map(lambda m, g, p: g if m else p, mask, whole, params)

    return objective_of(value_fn, "restrict").before(fill).as_given()


def _check_callable(user: str, **functions: object) -> None:
    for name, fn in functions.items():
        if not callable(fn):
            raise TypeError(f"{user} needs {name} to be a function, but got {reprlib.repr(fn)}.")
