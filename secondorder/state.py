"""What an Optax state holds of this library's: found, reported, undone, with room for more.

A method may lie anywhere in a state: in a chain, under a mask, among injected hyperparameters. Who
asks after it, asks here.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.step import Step
from secondorder.tree import Params
from secondorder.trust._base import TrustState


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Needs:
    """What a method would take from its caller.

    Attributes:
      jacobian: a dense Jacobian, where the caller has it.
      room: ``point``, where the caller's objective is the same at every update.
    """

    jacobian: bool = False
    room: bool = False


class CurvatureState(NamedTuple):
    """The state of :func:`scale_by_curvature`.

    Attributes:
      count: updates so far.
      rejections: how many of them were rejected.
      products: curvature products paid in all of them.
      curvature, solver: the memories, rolled back where a step is rejected.
      trust: the :class:`TrustState`, which moves at every update.
      step: the last :class:`Step` that was proposed, without its vectors.
      point: factors and memory that the solver has prepared at the last point; ``None`` where the
        next update may not be there, as in a training loop, whose batches change.
      needs: a :class:`Needs`.
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
    """Every state of an Optax line search (they share no class, but these two fields)."""
    is_search = lambda x: hasattr(x, "info") and hasattr(x, "learning_rate")
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=is_search) if is_search(leaf)]


def diagnostics(state: Any) -> dict[str, jax.Array]:
    """What the last update did, from any Optax state that holds a method of this library.

    Works inside ``jit``. Keys, present where they apply:

    * ``steps``, ``rejections``, ``total_products``: so far;
    * ``accepted``, ``gain``, ``scale`` (the next λ, Δ or σ);
    * ``predicted``, ``length``, ``iterations``, ``products``, ``residual``, ``optimality``,
      ``stopped`` (a ``solvers.Stop``), ``dimension``, ``fraction``, ``trial_evaluations``,
      ``order`` (1 where a step is not accelerated): of the last solve;
    * ``jacobians``: how many it formed: 0 of a Gram by layer statistics, and of products alone;
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
        "fraction": step.fraction,
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
    return found


def takes_jacobian(state: Any) -> bool:
    """Whether a method inside an Optax state forms a dense Jacobian at every point."""
    return any(ours.needs.jacobian for ours in find_states(state))


def measured(state: Any) -> jax.Array:
    """Whether the solver measures optimality itself (infinity: it does not)."""
    ours = find_states(state)
    return ~jnp.isinf(ours[-1].step.report.optimality) if ours else jnp.asarray(False)


def models(state: Any) -> jax.Array:
    """Whether the last step was of a model by second derivatives."""
    ours = find_states(state)
    return ours[-1].step.report.products > 0 if ours else jnp.asarray(False)


def tried(state: Any) -> jax.Array:
    """Whether a trust policy has judged the last step by its value (an unasked gain is +∞)."""
    ours = find_states(state)
    return ~jnp.isposinf(ours[-1].trust.gain) if ours else jnp.asarray(False)


def stored(state: Any, params: Params) -> Any | None:
    """The last link of a chain where it is a line search that holds value and gradient.

    Only the last: a transformation after it would move the parameters on, and its gradient would be
    that of another point. Nor where the parameters are rounded below what a search computes in.
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
    """The Optax state ``new``, or, where so, as if the update that led to it had not been made.

    What it learnt of its point, the report and what is prepared, stays: that is still true.
    """

    is_ours = lambda x: isinstance(x, CurvatureState)

    def known(old: Any, new: Any) -> Any:
        if not is_ours(new):
            return old
        return old._replace(step=new.step, point=new.point)

    old = jax.tree.map(known, old, new, is_leaf=is_ours)
    return jax.tree.map(lambda a, b: b if a is b else jnp.where(where, a, b), old, new)


def with_room(state: Any, shapes: Any) -> Any:
    """``state`` with zeros where it holds ``None`` and a later state, of these shapes, an array."""
    fill = lambda old, later: tree.zeros_like(later) if old is None else old
    return jax.tree.map(fill, state, shapes, is_leaf=lambda x: x is None)


def settled(x: Any) -> Any:
    """An array whose dtype is its own, not a weak one that the loop would have to promote."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return jax.lax.convert_element_type(x, x.dtype)
