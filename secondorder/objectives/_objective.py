"""Objectives ``f = loss ∘ model``, which are themselves the ``value_fn``; bounds and masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from secondorder import checks, losses, tree
from secondorder.objectives._chunked import Chunked
from secondorder.objectives._with_curvature import WithCurvature
from secondorder.tree import Params

Outputs = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """The feasible set of a step from ``params``: inside the bounds, along free parameters.

    Attributes:
      lower, upper: the bounds, trees like the parameters.
      params: the point.
      grad: the gradient there, of all parameters.
      free: mask of the parameters that may move: all but those held at a bound by the gradient.
    """

    lower: Params
    upper: Params
    params: Params
    grad: Params
    free: Params

    def onto(self, p: Params) -> Params:
        """The projection of ``p``; on a bound its derivative is that of the identity."""

        def leaf(x, low, high, here, free):
            inside = jnp.where(x < low, low, jnp.where(x > high, high, x))
            return jnp.where(free, inside, here).astype(x.dtype)

        return jax.tree.map(leaf, p, self.lower, self.upper, self.params, self.free)

    def cut(self, params: Params, direction: Params) -> Params:
        """A step from ``params`` cut at the bounds, zero along parameters that are held."""

        def leaf(d, x, low, high, free):
            x, low, high = (y.astype(d.dtype) for y in (x, low, high))
            inside = jnp.where(x + d < low, low - x, jnp.where(x + d > high, high - x, d))
            return jnp.where(free, inside, 0)

        return jax.tree.map(leaf, direction, params, self.lower, self.upper, self.free)


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, so that it may be jitted
class Objective:
    """``f(params) = loss(model(params))``, called like any function of the parameters.

    Optax passes ``value_fn`` to every optimizer, so it carries the split into loss and model:
    Hessian methods call it, Gauss-Newton methods use its parts. Build it within the jitted step
    (functions cannot cross a ``jit`` boundary); it is deliberately not a pytree.

    ``stationary`` means that it is the same function at every update, as inside ``minimize``, so
    that a solver may keep the factors of a point for the next trial there. Never set it where
    batches change. ``minimize`` sets ``face`` where there are bounds.

    Complex outputs of the model are split into :class:`secondorder.tree.Parts`, two real outputs
    each, so that ``½ Σ |r|²`` is a sum of squares like any other. A plain function as the loss gets
    the complex outputs.
    """

    loss: Callable[[Outputs], jax.Array]
    model: Callable[[Params], Outputs]
    stationary: bool = False
    face: Face | None = None

    def __post_init__(self):
        object.__setattr__(self, "loss", losses.as_loss(self.loss))
        object.__setattr__(self, "model", _in_parts(self.model))

    def __call__(self, params: Params) -> jax.Array:
        return checks.as_number(self.loss(self.model(params)), "compose", "loss")


@dataclasses.dataclass(frozen=True)
class Stationary:
    """A plain function that is the same at every update, so that factors may be kept."""

    fn: Callable[[Params], jax.Array]
    stationary: bool = True
    face: Face | None = None

    def __call__(self, params: Params) -> jax.Array:
        return jnp.asarray(self.fn(params))  # a constant function may return a Python number


AnyObjective = Objective | Stationary | Chunked | WithCurvature


def held(value_fn: AnyObjective, face: Face) -> AnyObjective:
    """``value_fn ∘ face.onto``: its values and derivatives are those of the projected point.

    So a search along any ray, also of another library, follows the projected path. Curvatures and
    the trial of a step read the bounds from the ``face`` of the objective.
    """
    if isinstance(value_fn, WithCurvature):
        both = value_fn.value_fn, value_fn.curvature_fn
        return WithCurvature(*(held(fn, face) for fn in both))  # type: ignore
    if isinstance(value_fn, Stationary):
        return Stationary(lambda p: value_fn.fn(face.onto(p)), face=face)
    return dataclasses.replace(_before(face.onto, value_fn), face=face)


def _before(change: Callable[[Params], Params], value_fn: Any) -> Any:
    """``value_fn ∘ change``, with the same split into loss and model."""
    if isinstance(value_fn, WithCurvature):
        both = value_fn.value_fn, value_fn.curvature_fn
        return WithCurvature(*(_before(change, fn) for fn in both))
    if isinstance(value_fn, Chunked):
        return value_fn.over(lambda part: _before(change, part))
    if isinstance(value_fn, Objective):
        return dataclasses.replace(value_fn, model=_through(change, value_fn.model))
    return lambda p: value_fn(change(p))


def _through(change: Callable[[Params], Params], model: Callable) -> Callable:
    """``model ∘ change``, with independent examples if ``model`` has them."""
    if isinstance(model, BatchedModel):
        inner = model.model
        return dataclasses.replace(model, model=lambda p, x: inner(change(p), x))
    return lambda p: model(change(p))


def checked(value_fn: Any, user: str) -> Any:
    """``value_fn`` with a check of its value; objectives and ``None`` are returned unchanged."""
    if value_fn is None or isinstance(value_fn, AnyObjective):
        return value_fn
    return checks.number(value_fn, user)


def is_stationary(value_fn: Callable) -> bool:
    """Whether ``value_fn`` is declared to be the same function at every update."""
    return getattr(value_fn, "stationary", False)


def face_of(value_fn: Any) -> Face | None:
    """Where steps from the point may lead; ``None`` without bounds."""
    return getattr(value_fn, "face", None)


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
        with checks.traced("An objective", "model"):
            outputs = checks.as_arrays(self.model(*args), "An objective", integers=True)
        return tree.parts(outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """``params ↦ fn(params, *theta)``: real outputs, with derivatives in both modes."""

    fn: Callable
    theta: Any

    def __call__(self, *args: Any) -> Outputs:
        return self.fn(*args, *self.theta)


def _in_parts(model: Callable) -> Callable:
    if isinstance(model, InParts | Opened | Known):
        return model
    if isinstance(model, BatchedModel):
        return dataclasses.replace(model, model=_in_parts(model.model))
    return InParts(model)


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


def restrict(value_fn: Callable, params: Params, mask: Any = None) -> Callable:
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

    def is_gap(x: Any) -> bool:
        return isinstance(x, optax.MaskedNode)

    def fill(given: Params) -> Params:
        whole = jax.tree.map(lambda g, p: p if is_gap(g) else g, given, params, is_leaf=is_gap)
        if mask is None:
            return whole
        return jax.tree.map(lambda m, g, p: g if m else p, mask, whole, params)

    return _before(fill, value_fn)


def as_objective(value_fn: Callable, user: str) -> Objective:
    """``value_fn`` if it is an :class:`Objective`, else a ``TypeError``."""
    if isinstance(value_fn, Objective):
        return value_fn
    if isinstance(value_fn, Chunked):
        raise TypeError(
            f"{user} needs all outputs at once, but value_fn is chunked. Pass the objective of the "
            "whole batch, or take a method that works by products, such as secondorder.newton_cg "
            "or secondorder.hessian_free."
        )
    if isinstance(value_fn, WithCurvature):
        raise TypeError(
            f"{user} got an objective with the curvature of another one, and cannot tell which of "
            "the two is meant. Pass that one itself; around chunks, give with_curvature two "
            "chunked objectives."
        )
    raise TypeError(
        f"{user} needs the split of the objective into loss and model, but value_fn is "
        f"{value_fn!r}, a plain function. Pass value_fn=secondorder.compose(loss, model), or "
        "secondorder.sum_of_squares(residual) for least squares."
    )


def _check_callable(user: str, **functions: Any) -> None:
    for name, fn in functions.items():
        if not callable(fn):
            raise TypeError(f"{user} needs {name} to be a function, but got {fn!r}.")
