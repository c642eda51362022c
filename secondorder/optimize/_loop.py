"""Driver for any Optax optimizer: convergence tests, status, evaluation counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from secondorder import state as states
from secondorder import tree
from secondorder.objectives._at_point import AtPoint, Face
from secondorder.objectives._models import Known
from secondorder.operators._dense import ravel
from secondorder.operators._jacobian import linearize
from secondorder.optimize._bounds import free_params
from secondorder.optimize._convergence import NOTHING, after_tests, little, shown
from secondorder.optimize._packing import Packed, Packing
from secondorder.optimize._records import Evaluations, History, Loop, Problem, Status
from secondorder.optimize._watch import Iterate
from secondorder.tree import Params

DIGITS = 1e-2  # change of a parameter that a last step may leave out, relative to the tolerance


def begin(problem: Problem, params: Params, history: int) -> Loop:
    """The loop before its first step."""
    dtype = tree.dtype(params)
    value_dtype = jax.eval_shape(problem.fn, params).dtype
    unknown = lambda *shape, dtype=dtype: jnp.full(shape, jnp.inf, dtype)
    count = lambda: jnp.zeros((), jnp.int32)
    state = states.on_one_objective(problem.optimizer.init(params))
    state = jax.tree.map(states.settled, state)
    return Loop(
        params=params,
        state=_with_room(state, problem, params),
        last=params,
        value=unknown(dtype=value_dtype),
        grad_norm=unknown(),
        grad=tree.zeros_like(params),
        model=_no_model(problem, state, params),
        moved=jnp.asarray(True),
        cut=jnp.asarray(False),
        first_size=jnp.full((), -1, dtype),
        curvature=tree.accumulator(tree.zeros_like(params)),
        flat=jnp.asarray(False),
        still=count(),
        promised=jnp.zeros((), dtype),
        idle=count(),
        largest=jax.tree.map(jnp.abs, params),
        passed=jnp.asarray(False),
        steps=count(),
        paid=jnp.zeros(4, jnp.int32),
        history=None
        if history == 0
        else History(
            unknown(history, dtype=value_dtype),
            unknown(history),
            unknown(history),
            jnp.zeros(history, bool),
        ),
        status=jnp.asarray(Status.RUNNING.value, jnp.int32),
    )


def ended(loop: Loop) -> Packed:
    """The loop for a solution: packed, and without the Jacobian, which is as large as the data."""
    loop = loop._replace(model=None)
    return Packing.of(loop).pack(loop)


def resumed(problem: Problem, packed: Packed) -> Loop:
    """The loop to go on from an ended one; its Jacobian is taken again, and not counted twice."""
    loop = packed.packing.unpack(packed)
    model = _no_model(problem, loop.state, loop.params)
    loop = loop._replace(status=jnp.full_like(loop.status, Status.RUNNING.value), model=model)
    if model is None:
        return loop
    place = Evaluations._fields.index("gradients")
    paid = loop.paid.at[place].add(jnp.where(loop.moved, 0, -1).astype(jnp.int32))
    return loop._replace(moved=jnp.ones_like(loop.moved), paid=paid)


def _no_model(problem: Problem, state: Any, params: Params) -> tuple[Any, Any] | None:
    """Zeros in place of outputs and Jacobian, if the optimizer uses one."""
    if not (states.takes_jacobian(state) and problem.fn.is_split):
        return None
    return tree.zeros_like(
        jax.eval_shape(lambda p: _value_grad_model(problem.fn, p, True)[2], params)
    )


def _with_room(state: Any, problem: Problem, params: Params) -> Any:
    """The first state with room for the factors of a point.

    Their shapes depend on the objective, which ``init`` does not get, so an abstract update gives
    them. The zeros are never read, since the first update is not a second trial.
    """
    if not any(ours.needs.room is not None for ours in states.find_states(state)):
        return state

    def one_update(state, params):
        value, grad = jax.value_and_grad(problem.fn)(params)
        known = {"value": value, "grad": grad, "value_fn": AtPoint(problem.fn, stationary=True)}
        return problem.optimizer.update(grad, state, params, **known)[1]

    return states.with_room(state, jax.eval_shape(one_update, state, params))


def run(problem: Problem, start: Loop) -> Loop:
    """Run the loop to its end. Its body evaluates, tests, then updates: one gradient per step."""
    packing = Packing.of(start)
    is_running = lambda packed: packing.unpack(packed).status == Status.RUNNING.value
    # Otherwise XLA folds the constants of a fresh start into the body, and a continued solve would
    # round differently from an uninterrupted one.
    begun = jax.lax.optimization_barrier(packing.pack(start))
    return packing.unpack(jax.lax.while_loop(is_running, _body(problem, packing), begun))


def once(problem: Problem, loop: Loop) -> Loop:
    """One iteration, for use inside another library's loop."""
    packing = Packing.of(loop)
    return packing.unpack(_body(problem, packing)(packing.pack(loop)))


def _body(problem: Problem, packing: Packing) -> Callable[[Packed], Packed]:
    """The body of the packed loop; packed, since every array that leaves a branch is a kernel."""

    def body(packed):
        loop = packing.unpack(packed)
        active = loop.status == Status.RUNNING.value  # not in a lane of a batch that has ended
        loop = _evaluate(problem.fn, loop)
        grad, fn = loop.grad, AtPoint(problem.fn, stationary=True)
        columns = None if loop.model is None else loop.model[1]
        face = None
        if problem.box is not None:
            free = free_params(loop.params, grad, problem.box)
            face = Face(*problem.box, loop.params, grad, free)
            grad, fn = tree.only(free, grad), fn.on(face)
            columns = jax.tree.map(lambda c: jnp.where(ravel(free), c, 0), columns)
        loop = after_tests(loop, grad, problem)
        if problem.question is not None:
            loop = _asked(loop, active, problem.question)

        def update(packed):
            loop = packing.unpack(packed)
            known = fn
            if loop.model is not None:
                jacobian = loop.params, loop.model[0], columns
                known = dataclasses.replace(fn, jacobian=jacobian)
            updates, state = problem.optimizer.update(
                grad, loop.state, loop.params, value=loop.value, grad=grad, value_fn=known
            )
            return packing.pack(_advance(loop, updates, state, face, problem))

        running = loop.status == Status.RUNNING.value
        return jax.lax.cond(running, update, lambda packed: packed, packing.pack(loop))

    return body


def _evaluate(fn: Callable, loop: Loop) -> Loop:
    """The loop with value and gradient at its parameters.

    Reused after a rejected step, and after a line search that ended here and stored them (unless
    the optimizer uses a Jacobian, which needs an evaluation anyway).
    """
    stored = states.stored(loop.state, loop.params) if loop.model is None else None

    def fresh():
        value, grad, model = _value_grad_model(fn, loop.params, loop.model is not None)
        return jnp.asarray(value, loop.value.dtype), grad, model

    known, here = ~loop.moved, (loop.value, loop.grad)
    if stored is not None:
        found = stored.value.astype(loop.value.dtype), tree.cast(stored.grad, loop.params)
        here = tree.where(loop.moved, found, here)
        known = known | (jnp.isfinite(stored.value) & ~loop.cut)
    kept = lambda: (*here, loop.model)
    value, grad, model = jax.lax.cond(known, kept, fresh)
    norm = tree.norm(grad).astype(loop.grad_norm.dtype)
    # The first point has no earlier one to fall back on.
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    sound = finite | (loop.steps == 0)
    here = tree.where(
        sound,
        (loop.params, value, norm, grad),
        (loop.last, loop.value, loop.grad_norm, loop.grad),
    )
    status = jnp.where(finite, loop.status, Status.NONFINITE.value)
    params, value, norm, grad = here
    curvature = shown(loop, params, value, grad)
    gradients = jnp.where(known, 0, 1).astype(jnp.int32)
    return loop._replace(
        params=params,
        last=params,
        value=value,
        grad_norm=norm,
        grad=grad,
        model=model,
        curvature=curvature,
        moved=jnp.asarray(False),
        paid=loop.paid.at[Evaluations._fields.index("gradients")].add(gradients),
        status=status.astype(jnp.int32),
    )


def _value_grad_model(fn: Callable, params: Params, jacobian: bool):
    """Value, gradient, and with ``jacobian`` the model's outputs and Jacobian (else ``None``).

    With a Jacobian the gradient is a product, so the model is differentiated once, not twice.
    """
    if not jacobian:
        return *jax.value_and_grad(fn)(params), None
    at = linearize(fn.model, params)
    columns = at.dense()
    value, slope = jax.value_and_grad(fn.loss)(at.outputs)
    known = linearize(Known(fn.model, params, at.outputs, columns), params)
    return value, known.mvt(slope), (at.outputs, columns)


def _advance(loop: Loop, updates: Params, state: Any, face: Face | None, problem: Problem) -> Loop:
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
        largest=tree.where(idle, loop.largest, _larger(loop.largest, params)),
        passed=outcome.passes,
        steps=loop.steps + jnp.where(optimal, 0, 1).astype(jnp.int32),
        paid=loop.paid + outcome.counts,
        history=tree.where(optimal, loop.history, history),
        status=jnp.where(optimal, outcome.ends, loop.status).astype(jnp.int32),
    )


def _asked(loop: Loop, active: jax.Array, question: Callable) -> Loop:
    """The loop after the callback, which may end it."""
    ours = states.find_states(loop.state)
    scale = ours[-1].trust.scale if ours else jnp.full((), jnp.inf, loop.value.dtype)
    at = Iterate(loop.steps, loop.params, loop.value, loop.grad_norm, scale)
    stops = question(active, at)
    stops = stops & (loop.status == Status.RUNNING.value)
    status = jnp.where(stops, Status.STOPPED.value, loop.status)
    return loop._replace(status=status.astype(jnp.int32))


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


class _Outcome(NamedTuple):
    """The outcome of an update, from the optimizer's state.

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


def _larger(largest: Params, params: Params) -> Params:
    return jax.tree.map(lambda most, x: jnp.maximum(most, jnp.abs(x)), largest, params)


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
