"""The state of a method, and access to it inside any Optax state.

A method may lie anywhere in a state: in a chain, under a mask, among injected hyperparameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from secondorder import tree
from secondorder.curvature._running import Running
from secondorder.notices import page
from secondorder.step import Step, Stop
from secondorder.tree import Params
from secondorder.trust._base import TrustState

Node = TypeVar("Node")


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
    return _find(CurvatureState, state)


def _find(kind: type[Node], state: Any) -> list[Node]:
    """Every node of a kind inside a tree."""
    is_one = lambda x: isinstance(x, kind)
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=is_one) if is_one(leaf)]


def find_linesearches(state: Any) -> list[Any]:
    """Every state of an Optax line search, recognised by two fields (they share no class)."""
    is_search = lambda x: hasattr(x, "info") and hasattr(x, "learning_rate")
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=is_search) if is_search(leaf)]


def diagnostics(state: Any) -> dict[str, jax.Array]:
    """A report of the last update, from any Optax state that contains a method of this library.

    Works inside ``jit``. Each value is one number, ready for :func:`secondorder.log.csv`.

    Of the run so far:

    * ``steps``: updates, rejected ones included;
    * ``rejections``: how many of them were rejected;
    * ``total_products``: curvature products, or passes for a Jacobian;
    * ``refreshes``: of factors, bases or roots, where the curvature keeps some, as of ``kfac``.

    Of the trust policy, after the last update:

    * ``accepted``: whether the step was taken;
    * ``gain``: actual over predicted change; +∞ where none was computed, −∞ for a trial of NaN;
    * ``scale``: the number for the next step, λ, Δ or σ.

    Of the last step, before its trial:

    * ``predicted``: the change in the model, ``g·d + ½ d·B d``, negative;
    * ``length``: its length, in the norm of the solver's radius;
    * ``iterations``, ``products``: of the inner solver;
    * ``jacobians``: dense Jacobians formed: 0 for products alone and for Grams by layer statistics;
    * ``residual``: ``‖(B + λ)d + g‖ / ‖g‖``; ∞ where it was not computed;
    * ``optimality``: the first-order measure of a solver on rows; ∞ for others;
    * ``stopped``: how the solve ended, a :class:`secondorder.solvers.Stop`;
    * ``dimension``: order of the solved system, parameters or samples; 0 where there is no choice;
    * ``order``: order of the step's path; 1 where it is not accelerated;
    * ``full``: whether it is the whole Newton step, undamped and uncut;
    * ``fraction``: the part of it that a search took;
    * ``trial_evaluations``: evaluations of the objective to choose among candidates;
    * ``lost``: whether a parameter that had an effect has none at this point.

    Of the last line search, where one of Optax's is chained:

    * ``learning_rate``: the step that it took;
    * ``linesearch_steps``: its evaluations.

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
    kept = [r.refreshes for r in _find(Running, last.curvature) if r.refreshes is not None]
    if kept:
        found["refreshes"] = kept[-1]
    for search in find_linesearches(state):
        found["learning_rate"] = search.learning_rate
        found["linesearch_steps"] = search.info.num_linesearch_steps
    # Flax NNX wraps the arrays of a state in variables of its own.
    return {name: _array_of(x) for name, x in found.items()}


FEW, MANY = 20, 50  # updates before a sentence on rejections, and on refreshes


def advice(state: Any) -> tuple[str, ...]:
    """Sentences on the faults of a run, each with cause, cure and page; none without a fault.

    Looks at the values of :func:`diagnostics`, so it works outside of ``jit`` alone: many rejected
    updates, λ, Δ or σ at its limit, a trial or a curvature that is not finite, an inner solver at
    its limit of iterations, factors that were never refreshed. Of a batch of states it reports what
    holds for one of them.

    Args:
      state: an Optax state that contains a method of this library, such as ``solution.state``.

    Raises:
      ValueError: no state of this library is inside.
      TypeError: a traced state.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> f, p, opt = lambda p: jnp.sum(jnp.cosh(p)), jnp.ones(2), so.newton_cg()
      >>> _, state = opt.update(jax.grad(f)(p), opt.init(p), p, value_fn=f)
      >>> so.advice(state)
      ()
    """
    found = diagnostics(state)
    if any(isinstance(x, Tracer) for x in found.values()):
        raise TypeError(
            "advice got a traced state. Call it outside of jit, on the state that the step returns."
        )
    return tuple(_sentences({name: np.asarray(x) for name, x in found.items()}))


def _sentences(now: dict[str, np.ndarray]) -> Iterator[str]:
    steps, limits = now["steps"], jnp.finfo(now["scale"].dtype)
    many = (steps >= FEW) & (2 * now["rejections"] > steps)
    if np.any(many):
        yield (
            f"{int(np.max(now['rejections']))} of {int(np.max(steps))} updates were rejected: "
            "gradient and value_fn do not agree, or the objective is noisy or rough here. Pass the "
            "same batch, random key and mask to both, and grad= behind a transformation that "
            f"changes the gradient. {page('trust')}"
        )
    rejected, finite = ~now["accepted"], np.isfinite(now["scale"])
    high = rejected & finite & (now["scale"] >= float(limits.max) ** 0.5 / 2)
    low = rejected & (now["scale"] <= 16 * float(limits.tiny) / float(limits.eps))
    low = low & (now["scale"] > 0)
    if np.any(high | low):
        word = "λ (or σ) has risen" if np.any(high) else "Δ has fallen"
        yield (
            f"{word} to its limit, and the last step was rejected: no step of any length descends. "
            "Compare the gradient with finite differences, and look for random numbers, rounding "
            f"or integers in value_fn. {page('trust')}"
        )
    spoilt = now["stopped"] == Stop.NONFINITE.value
    if np.any(np.isneginf(now["gain"]) & rejected & ~spoilt):
        yield (
            "The last trial was NaN or infinite, or the model predicted no decrease. If it stays "
            f"so, look for log, sqrt or a division outside of their domain. {page('faq')}"
        )
    if np.any(spoilt):
        yield (
            "The gradient or the curvature holds NaN or infinity, so there is no step. Look at "
            f"jax.debug_nans, and at the branch of jnp.where that is not taken. {page('faq')}"
        )
    if np.any((now["stopped"] == Stop.MAX_STEPS.value) & ~rejected & (now["residual"] > 0.5)):
        yield (
            "The inner solver ended at its limit of iterations, far from a solution. Allow more, "
            f"start λ higher, or give it a preconditioner. {page('diagnostics')}"
        )
    if "refreshes" in now and np.any((now["refreshes"] <= 1) & (steps >= MANY)):
        yield (
            f"The factors are those of the first update, {int(np.max(steps))} updates ago: "
            f"refresh_every is too large, or its drift never reached. Lower it. {page('batches')}"
        )


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
