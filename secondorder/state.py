"""The state of a method, and access to it inside any Optax state.

A method may lie anywhere in a state: in a chain, under a mask, among injected hyperparameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from secondorder import tree
from secondorder.step import Step
from secondorder.tree import Params
from secondorder.trust._base import TrustState


class Needs(NamedTuple):
    """Optional inputs of a method from its caller: an empty node for each that is used.

    Nodes are part of a state's structure, so they are known while tracing; and no library that
    saves states has to know a class of its own.

    Attributes:
      jacobian: of a dense Jacobian of the caller.
      room: of ``point``, for an objective that is the same at every update.
    """

    jacobian: optax.EmptyState | None = None
    room: optax.EmptyState | None = None


class CurvatureState(NamedTuple):
    """State of a method by :func:`scale_by_curvature`.

    Attributes:
      count: updates so far.
      rejections: how many of them were rejected.
      products: curvature products of all updates.
      curvature, solver: the memories; a rejected step leaves them as they were.
      trust: the :class:`TrustState`, new at every update.
      step: the last :class:`Step` proposed, without its vectors.
      point: factors and memory prepared at the last point; ``None`` where the objective may change
        before the next update, as in a training loop.
      needs: a :class:`Needs`.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> state = so.newton_cg().init(jnp.zeros(2))
      >>> isinstance(state, so.CurvatureState), state.count.item()
      (True, 0)
    """

    count: jax.Array
    rejections: jax.Array
    products: jax.Array
    curvature: Any
    solver: Any
    trust: TrustState
    step: Step
    point: Any = None
    needs: Any = Needs()  # no array


def find_states(state: Any) -> list[CurvatureState]:
    """Every :class:`CurvatureState` inside an Optax state."""
    is_ours = lambda x: isinstance(x, CurvatureState)
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=is_ours) if is_ours(leaf)]


def find_linesearches(state: Any) -> list[Any]:
    """Every state of an Optax line search, recognised by two fields (they share no class)."""
    is_search = lambda x: hasattr(x, "info") and hasattr(x, "learning_rate")
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=is_search) if is_search(leaf)]


def diagnostics(state: Any) -> dict[str, jax.Array]:
    """A report of the last update, from any Optax state that contains a method of this library.

    Works inside ``jit``. Keys, present where they apply:

    * ``steps``, ``rejections``, ``total_products``: so far;
    * ``accepted``, ``gain``, ``scale`` (the next λ, Δ or σ);
    * ``predicted``, ``length``, ``iterations``, ``products``, ``residual``, ``optimality``,
      ``stopped`` (a ``solvers.Stop``), ``dimension``, ``fraction``, ``trial_evaluations``,
      ``order`` (1 where a step is not accelerated): of the last solve;
    * ``jacobians``: dense Jacobians formed: 0 for products alone and for Grams by layer statistics;
    * ``learning_rate``, ``linesearch_steps``: of the last Optax line search, where one is chained.

    Raises:
      ValueError: no state of this library is inside.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.diagnostics(so.newton_cg().init(jnp.zeros(2)))["steps"].item()
      0
    """
    states = find_states(state)
    if not states:
        raise ValueError(
            "diagnostics found no state of this library's methods. Pass the state that the "
            "optimizer's init or update returned."
        )
    last = states[-1]
    step = last.step
    found = {
        "predicted": step.predicted,
        "length": step.length,
        **step.report._asdict(),
        "steps": last.count,
        "rejections": last.rejections,
        "total_products": last.products,
        "accepted": last.trust.accepted,
        "gain": last.trust.gain,
        "scale": last.trust.scale,
    }
    for search in find_linesearches(state):
        found["learning_rate"] = search.learning_rate
        found["linesearch_steps"] = search.info.num_linesearch_steps
    # Flax NNX wraps the arrays of a state in variables of its own.
    return {name: _array_of(x) for name, x in found.items()}


def _array_of(x: Any) -> Any:
    within = getattr(x, "__jax_array__", None)
    return x if within is None else within()


def on_one_objective(state: Any) -> Any:
    """The state for an objective that stays the same, which judges no step of another one."""
    is_trust = lambda x: isinstance(x, TrustState)
    without = lambda x: x._replace(last=()) if is_trust(x) else x
    return jax.tree.map(without, state, is_leaf=is_trust)


def takes_jacobian(state: Any) -> bool:
    """Whether a method inside an Optax state forms a dense Jacobian at every point."""
    return any(ours.needs.jacobian is not None for ours in find_states(state))


def measured(state: Any) -> jax.Array:
    """Whether the solver measures optimality (infinity in the report: it does not)."""
    ours = find_states(state)
    return ~jnp.isinf(ours[-1].step.report.optimality) if ours else jnp.asarray(False)


def models(state: Any) -> jax.Array:
    """Whether the last step minimised a model with second derivatives."""
    ours = find_states(state)
    return ours[-1].step.report.products > 0 if ours else jnp.asarray(False)


def rounding(state: Any) -> jax.Array | float:
    """The rounding error of the objective at the last step; 0 where no solver sees its parts."""
    ours = find_states(state)
    return ours[-1].step.rounding if ours else 0.0


def promised(state: Any) -> jax.Array | float:
    """The decrease that the last model promised; infinity without a model."""
    ours = find_states(state)
    return jnp.abs(ours[-1].step.predicted) if ours else jnp.inf


def tried(state: Any) -> jax.Array:
    """Whether a trust policy evaluated the last step (its gain is +∞ where it did not)."""
    ours = find_states(state)
    return ~jnp.isposinf(ours[-1].trust.gain) if ours else jnp.asarray(False)


def stored(state: Any, params: Params) -> Any | None:
    """The state of a line search with value and gradient, if it is the last link of a chain.

    ``None`` for any other link: a transformation after the search moves the parameters, and the
    gradient would be that of another point. ``None`` also where the parameters have a lower
    precision than the search.
    """
    if any(tree.leaf_dtype(x) != tree.accumulation_dtype(x.dtype) for x in jax.tree.leaves(params)):
        return None
    while type(state) is tuple and state:  # a chain's state; a NamedTuple is a link's
        state = state[-1]
    for search in find_linesearches(state):
        same = jax.tree.structure(getattr(search, "grad", None)) == jax.tree.structure(params)
        if search is state and same and hasattr(search, "value"):
            return search
    return None


def undone(where: jax.Array, old: Any, new: Any) -> Any:
    """The Optax state ``new``, or, where the condition holds, ``old``.

    Report and prepared factors stay those of ``new``: they describe the same point.
    """

    is_ours = lambda x: isinstance(x, CurvatureState)

    def known(old: Any, new: Any) -> Any:
        if not is_ours(new):
            return old
        return old._replace(step=new.step, point=new.point)

    old = jax.tree.map(known, old, new, is_leaf=is_ours)
    return jax.tree.map(lambda a, b: b if a is b else jnp.where(where, a, b), old, new)


def with_room(state: Any, shapes: Any) -> Any:
    """``state`` with zeros in place of each ``None`` that is an array in a later state."""
    fill = lambda old, later: tree.zeros_like(later) if old is None else old
    return jax.tree.map(fill, state, shapes, is_leaf=lambda x: x is None)


def settled(x: Any) -> Any:
    """An array with a strong dtype, since a weak one would be promoted inside the loop."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return jax.lax.convert_element_type(x, x.dtype)
