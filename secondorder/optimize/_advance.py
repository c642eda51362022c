"""The loop after an update: its next point, or its end where the optimizer finds it optimal."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from secondorder import state as states
from secondorder import tree
from secondorder.objectives._at_point import Face
from secondorder.optimize._convergence import NOTHING, little
from secondorder.optimize._records import History, Loop, Problem, Status
from secondorder.tree import Params

DIGITS = 1e-2  # change of a parameter that a last step may leave out, relative to the tolerance


def advanced(loop: Loop, updates: Params, state: Any, face: Face | None, problem: Problem) -> Loop:
    """The loop after an update, or at the current point if the solver found it optimal."""
    dtype = loop.promised.dtype
    params, cut = optax.apply_updates(loop.params, updates), jnp.asarray(False)
    if face is not None:
        params, updates, cut = _on_face(loop.params, updates, params, face)
    outcome = _outcome(loop, _far(updates, loop.params, problem.tol), state, problem)
    slope = tree.vdot(loop.grad, updates).astype(dtype)
    # The predicted decrease of a full Newton step has no unit; other models need both tests.
    small = jnp.abs(slope) <= little(loop, problem)
    spent = outcome.full & outcome.accepted & small & (slope != 0)
    agreed = loop.flat & (outcome.predicted <= little(loop, problem))
    optimal = outcome.optimal | ((spent | agreed) & ~states.measured(loop.state))

    params = tree.where(optimal, loop.params, params)
    still, moved = _movement(params, loop.params)
    # A search along the line changes the length of the step that the model has promised.
    nothing = jnp.minimum(problem.tol, NOTHING) * jnp.abs(loop.value).astype(dtype)
    idle = states.tried(state) & (outcome.predicted <= nothing)
    larger = lambda most, x: jnp.maximum(most, jnp.abs(x))
    largest = jax.tree.map(larger, loop.largest, params)
    history = loop.history
    if history is not None:  # records beyond its length are dropped
        record = (loop.value, loop.grad_norm, outcome.scale, outcome.accepted)
        rows = zip(history, record, strict=True)
        history = History(*(row.at[loop.steps].set(x, mode="drop") for row, x in rows))
    return loop._replace(
        params=params,
        state=states.undone(optimal, loop.state, jax.tree.map(states.settled, state)),
        moved=moved,
        cut=cut,
        still=jnp.where(still, loop.still + 1, 0).astype(jnp.int32),
        promised=jnp.where(still, jnp.fmax(loop.promised, outcome.predicted), 0).astype(dtype),
        idle=jnp.where(idle, loop.idle + 1, 0).astype(jnp.int32),
        largest=tree.where(idle, loop.largest, largest),
        passed=outcome.passes,
        steps=loop.steps + jnp.where(optimal, 0, 1).astype(jnp.int32),
        paid=loop.paid + outcome.counts,
        history=tree.where(optimal, loop.history, history),
        status=jnp.where(optimal, outcome.ends, loop.status).astype(jnp.int32),
    )


def _on_face(
    start: Params, updates: Params, ray: Params, face: Face
) -> tuple[Params, Params, jax.Array]:
    """The feasible point after an update, the update to it, and whether bounds changed it."""
    params = face.onto(ray)
    # A line search evaluates on the projected path, but its derivative ignores the bounds.
    differs = jax.tree.map(lambda a, b, m: jnp.any((a != b) | ~m), ray, params, face.free)
    cut = jnp.any(jnp.stack([jnp.asarray(False), *jax.tree.leaves(differs)]))
    own = lambda u, a, b, x: jnp.where(a == b, u, b - x).astype(u.dtype)
    return params, jax.tree.map(own, updates, ray, params, start), cut


def _far(updates: Params, params: Params, tol: jax.Array | float) -> jax.Array:
    """Whether a parameter changes by more than a hundredth of ``tol``, relative to its size."""
    beyond = lambda u, x: jnp.where(jnp.abs(u) > DIGITS * tol * jnp.abs(x), 1, 0)
    return tree.max_abs(jax.tree.map(beyond, updates, params)) > 0


def _movement(params: Params, start: Params) -> tuple[jax.Array, jax.Array]:
    """Whether the parameters are still (to rounding), and whether any of them changed."""
    eps = jnp.finfo(tree.dtype(start)).eps
    # 0 unchanged, 1 within rounding, 2 more; NaN counts as more.
    beyond = lambda new, x: ~(jnp.abs(new - x) <= eps * jnp.abs(x))
    far = jax.tree.map(
        lambda new, x: jnp.where(beyond(new, x), 2, jnp.where(new == x, 0, 1)), params, start
    )
    distance = tree.max_abs(far)
    return distance <= 1, distance >= 1


class _Outcome(NamedTuple):
    """The outcome of an update, from the state of the optimizer.

    Attributes:
      accepted: whether a trust policy took the step; true for other optimizers.
      predicted: the predicted decrease; infinity without a model.
      scale: the damping, radius or cubic weight; infinity for other optimizers.
      passes: whether the point passes the solver's optimality test.
      optimal: whether this test ends the solve.
      ends: the status of the solve where it is optimal.
      full: whether the step is a full Newton step that its trial confirms.
      counts: the four counts of :class:`Evaluations`.
    """

    accepted: jax.Array
    predicted: jax.Array
    scale: jax.Array
    passes: jax.Array
    optimal: jax.Array
    ends: jax.Array
    full: jax.Array
    counts: jax.Array


def _outcome(loop: Loop, far: jax.Array, state: Any, problem: Problem) -> _Outcome:
    ours, searches = states.find_states(state), states.find_linesearches(state)
    dtype = loop.promised.dtype
    passes, optimal, accepted = jnp.asarray(False), jnp.asarray(False), jnp.asarray(True)
    predicted, scale = jnp.full((), jnp.inf, dtype), jnp.full((), jnp.inf, dtype)
    full, ends = jnp.asarray(False), jnp.asarray(Status.CONVERGED.value)
    values, gradients, jacobians, products = 0, 0, 0, 0
    if ours:
        step, report, trust = ours[-1].step, ours[-1].step.report, ours[-1].trust
        passes, accepted = report.optimality <= problem.tol, trust.accepted
        predicted, scale = jnp.abs(step.predicted).astype(dtype), trust.scale.astype(dtype)
        # The step is already computed. It is taken where it shows in the value, or moves parameters
        # by more than the digits wanted; again only as long as steps contract: at rounding level a
        # decrease is chance. Gain +∞: none computed.
        computed = ~jnp.isposinf(trust.gain)
        gain, before = jnp.where(computed, trust.gain, 0), states.promised(loop.state)
        made, size = gain * predicted, jnp.abs(loop.value).astype(dtype)
        shows = accepted & (made > float(jnp.finfo(dtype).eps) * size)
        moves = accepted & far & (jnp.abs(gain - 1) <= 0.75)
        again = shows & (made < 0.1 * size) & (predicted < 0.1 * before)
        again = again | (moves & (predicted < 0.5 * before))
        optimal = passes & ~jnp.where(loop.passed, again, shows | moves)
        ends = jnp.where(report.lost, Status.NO_EFFECT.value, ends)
        full = report.full & (~computed | (jnp.abs(gain - 1) <= 0.5))
        values = report.trial_evaluations + jnp.where(computed, 1, 0)
        jacobians, products = report.jacobians, report.products
        products = jnp.where(jacobians > 0, 0, products)
    if searches:
        info = searches[-1].info
        gradients = info.num_linesearch_steps
        full = full & (getattr(info, "curvature_error", jnp.inf) <= 0)
    counts = [jnp.asarray(c, jnp.int32) for c in (values, gradients, jacobians, products)]
    return _Outcome(accepted, predicted, scale, passes, optimal, ends, full, jnp.stack(counts))
