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
from secondorder.objectives._base import AnyObjective
from secondorder.objectives._models import Known
from secondorder.operators._dense import ravel
from secondorder.operators._jacobian import linearize
from secondorder.step import Reason
from secondorder.tree import Params

PATIENCE = 20  # updates in a row without a change before the status is STAGNATED
REJECTIONS = 100  # in a row; a radius that falls by 4 each time falls by 1e60


class Status(Reason):
    """Reason for the end of a solve; an integer under ``jit``. Only ``CONVERGED`` is a success."""

    RUNNING = 0, "The solve has not ended."
    CONVERGED = 1, "The scaled first-order test holds: this is a stationary point to tolerance."
    MAX_STEPS = 2, "The step limit was reached before the first-order test held."
    LIMIT_OF_PRECISION = (
        3,
        "The steps have fallen below rounding, but the gradient test has not held.",
    )
    TRUST_LIMIT = 4, "Every step was rejected until damping or radius reached its limit."
    STAGNATED = 5, "The updates no longer change the parameters, and the gradient is not small."
    NONFINITE = (
        6,
        "The objective or its gradient became NaN or infinite; see the last finite point.",
    )
    NOT_AFFINE = 7, "The model is not affine in all the parameters that separable calls linear."


class Evaluations(NamedTuple):
    """Evaluation counts of a solve.

    Attributes:
      values: evaluations of the objective alone (trial steps).
      gradients: evaluations of objective and gradient together.
      jacobians: dense Jacobians.
      products: products with a Hessian, Gauss-Newton or Fisher matrix; a dense one counts n.
    """

    values: jax.Array
    gradients: jax.Array
    jacobians: jax.Array
    products: jax.Array


class History(NamedTuple):
    """Record of the first steps of a solve; infinity and false beyond the last one.

    Attributes:
      value, grad_norm: at the point the step starts from.
      scale: the damping, radius or cubic weight after the step; infinity for other optimizers.
      accepted: whether the step was taken.
    """

    value: jax.Array
    grad_norm: jax.Array
    scale: jax.Array
    accepted: jax.Array


class Loop(NamedTuple):
    """The complete state of the loop: a solve continues from it bit for bit."""

    params: Params  # the current point; at the end, the last finite one
    state: Any
    last: Params  # the last finite point
    value: jax.Array  # at `last`, as are the next two
    grad_norm: jax.Array
    grad: Params
    model: tuple[Any, Any] | None  # outputs and Jacobian, if the optimizer uses one
    moved: jax.Array  # whether value and gradient belong to an earlier point
    cut: jax.Array  # whether bounds changed the last step, and with it the value of a line search
    first_size: jax.Array  # |f| at the start, −1 before its evaluation
    curvature: Params  # lower bounds of the Hessian's diagonal from past steps, zero where none
    flat: jax.Array  # whether, by these bounds, no single parameter can still reduce the value
    still: jax.Array  # updates in a row without a change
    promised: jax.Array  # the largest predicted decrease of these updates
    passed: jax.Array  # whether the previous point passed the solver's optimality test
    steps: jax.Array
    paid: jax.Array  # the four counts of Evaluations
    history: History | None
    status: jax.Array


class Problem(NamedTuple):
    """Arguments of a solve.

    Attributes:
      fn: the objective, with derivatives in both modes.
      optimizer: an Optax transformation with extra arguments.
      tol, max_steps: tolerance of the test and limit of updates.
      box: ``None`` or the bounds ``(lower, upper)``, trees like the parameters.
      callback: ``None`` or a function of ``(steps, value, grad_norm)``, called on the host.
    """

    fn: AnyObjective
    optimizer: optax.GradientTransformationExtraArgs
    tol: Any
    max_steps: Any
    box: tuple[Params, Params] | None = None
    callback: Callable | None = None


def begin(problem: Problem, params: Params, history: int) -> Loop:
    """The loop before its first step."""
    dtype = tree.dtype(params)
    value_dtype = jax.eval_shape(problem.fn, params).dtype
    unknown = lambda *shape, dtype=dtype: jnp.full(shape, jnp.inf, dtype)
    count = lambda: jnp.zeros((), jnp.int32)
    state = jax.tree.map(states.settled, problem.optimizer.init(params))
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


def ended(loop: Loop) -> Loop:
    """The loop without the Jacobian, which is as large as the data."""
    return loop._replace(model=None)


def resumed(problem: Problem, loop: Loop) -> Loop:
    """The loop to go on from an ended one; its Jacobian is taken again, and not counted twice."""
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
    pack, unpack = tree.packing(start)
    is_running = lambda packed: unpack(packed).status == Status.RUNNING.value
    body = _body(problem, pack, unpack)
    # Otherwise XLA folds the constants of a fresh start into the body, and a continued solve would
    # round differently from an uninterrupted one.
    begun = jax.lax.optimization_barrier(pack(start))
    return unpack(jax.lax.while_loop(is_running, body, begun))


def once(problem: Problem, loop: Loop) -> Loop:
    """One iteration, for use inside another library's loop."""
    pack, unpack = tree.packing(loop)
    return unpack(_body(problem, pack, unpack)(pack(loop)))


def _body(problem: Problem, pack: Callable, unpack: Callable) -> Callable[[Any], Any]:
    """The body of the packed loop; packed, since every array that leaves a branch is a kernel."""

    def body(packed):
        loop = _evaluate(problem.fn, unpack(packed))
        grad, fn = loop.grad, AtPoint(problem.fn, stationary=True)
        columns = None if loop.model is None else loop.model[1]
        face = None
        if problem.box is not None:
            free = free_params(loop.params, grad, problem.box)
            face = Face(*problem.box, loop.params, grad, free)
            grad, fn = tree.only(free, grad), fn.on(face)
            columns = jax.tree.map(lambda c: jnp.where(ravel(free), c, 0), columns)
        loop = _test(loop, grad, problem)

        def update(packed):
            loop = unpack(packed)
            known = fn
            if loop.model is not None:
                jacobian = loop.params, loop.model[0], columns
                known = dataclasses.replace(fn, jacobian=jacobian)
            updates, state = problem.optimizer.update(
                grad, loop.state, loop.params, value=loop.value, grad=grad, value_fn=known
            )
            return pack(_advance(loop, updates, state, face, problem))

        running = loop.status == Status.RUNNING.value
        return jax.lax.cond(running, update, lambda packed: packed, pack(loop))

    return body


def active(
    params: Params, grad: Params, box: tuple[Params, Params] | None
) -> tuple[Params, Params]:
    """Masks of the parameters held at their lower, and at their upper bound by the gradient.

    A parameter between equal bounds is in one of the two.
    """
    if box is None:
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), params)
        return none, none
    lower = jax.tree.map(lambda x, g, low: (x <= low) & (g >= 0), params, grad, box[0])
    on_upper = lambda x, g, high, other: (x >= high) & (g <= 0) & ~other
    return lower, jax.tree.map(on_upper, params, grad, box[1], lower)


def free_params(params: Params, grad: Params, box: tuple[Params, Params] | None) -> Params:
    """Mask of the parameters that may move: all but those held at a bound by the gradient."""
    return jax.tree.map(lambda low, high: ~(low | high), *active(params, grad, box))


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
    curvature = _shown(loop, *here[:2], here[3])
    params, value, norm, grad = here
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


def _test(loop: Loop, grad: Params, problem: Problem) -> Loop:
    """The loop with its status after all tests; ``grad`` is zero for held parameters."""
    dtype = loop.grad_norm.dtype
    size = jnp.abs(loop.value).astype(dtype)
    first = jnp.where(loop.first_size < 0, size, loop.first_size)
    loop = loop._replace(first_size=first)
    loop = loop._replace(flat=_decrease(grad, loop.curvature) <= _little(loop, problem))
    # A solver that measures optimality may be at a saddle; a solver with a second-order model is
    # tested again after its next step.
    flat = loop.flat & ~states.models(loop.state)
    converged = (flat | (tree.max_abs(grad) == 0)) & ~states.measured(loop.state)

    status = jnp.where(loop.steps >= problem.max_steps, Status.MAX_STEPS.value, loop.status)
    # Either a trust policy rejected all steps, each shorter than the last; or the optimizer no
    # longer moves.
    tried = states.tried(loop.state)
    idle = loop.still >= jnp.where(tried, REJECTIONS, PATIENCE)
    stuck = jnp.where(tried, Status.TRUST_LIMIT.value, Status.STAGNATED.value)
    status = jnp.where(idle, stuck, status)
    # The first idle update counts: after rejections a step is short because damping made it so.
    rounding = 4 * jnp.finfo(loop.value.dtype).eps * size
    spent = (loop.still >= 2) & (loop.promised <= rounding)
    status = jnp.where(spent, Status.LIMIT_OF_PRECISION.value, status)
    status = jnp.where(converged, Status.CONVERGED.value, status)
    nonfinite = Status.NONFINITE.value
    status = jnp.where(loop.status == nonfinite, nonfinite, status).astype(jnp.int32)
    return loop._replace(status=status)


def _little(loop: Loop, problem: Problem) -> jax.Array:
    """The largest negligible decrease of the objective: ``tol² |f|``.

    Where f falls to zero, below ``tol |f₀|``, it is ``tol² max(|f|, min(|f₀|, 1))``: relative to a
    huge value at the start every decrease would be negligible.
    """
    size, first = jnp.abs(loop.value).astype(loop.first_size.dtype), loop.first_size
    falls = size < problem.tol * first
    return problem.tol**2 * jnp.where(falls, jnp.maximum(size, jnp.minimum(first, 1)), size)


def _shown(loop: Loop, params: Params, value: jax.Array, grad: Params) -> Params:
    """Lower bounds of the curvatures, updated by a step ``s`` and its change ``y`` of the gradient.

    By Cauchy and Schwarz ``Hᵢᵢ ≥ yᵢ²/sᵀy`` where H is positive definite. The largest of these
    bounds is kept, halved at each further step, since curvature changes.
    """
    wide = tree.accumulator
    s = jax.tree.map(jnp.subtract, wide(params), wide(loop.last))
    y = jax.tree.map(jnp.subtract, wide(grad), wide(loop.grad))
    energy = tree.vdot(s, y)
    # If the step changes the objective by less than rounding, y is mostly rounding.
    visible = energy > jnp.finfo(value.dtype).eps * jnp.abs(value).astype(energy.dtype)
    visible = visible & (loop.steps > 0)
    unit = jnp.where(visible, energy, 1)

    def leaf(old, change):
        bound = change * (change / unit.astype(change.dtype))
        return jnp.where(visible, jnp.maximum(0.5 * old, bound), old)

    return jax.tree.map(leaf, loop.curvature, y)


def _decrease(grad: Params, curvature: Params) -> jax.Array:
    """``Σ gᵢ²/cᵢ``, twice the sum of the largest gains along single parameters.

    Independent of the parameters' units; infinite where a needed curvature is unknown.
    """

    def leaf(g, c):
        known = c > 0
        gain = g * (g / jnp.where(known, c, 1))
        return jnp.where(g == 0, 0, jnp.where(known, gain, jnp.inf))

    return tree.total(jax.tree.map(leaf, tree.accumulator(grad), curvature))


def _advance(loop: Loop, updates: Params, state: Any, face: Face | None, problem: Problem) -> Loop:
    """The loop after an update, or at the current point if the solver found it optimal."""
    dtype = loop.promised.dtype
    params, cut = optax.apply_updates(loop.params, updates), jnp.asarray(False)
    if face is not None:
        params, updates, cut = _on_face(loop.params, updates, params, face)
    outcome = _outcome(loop, state, problem)
    slope = tree.vdot(loop.grad, updates).astype(dtype)
    # The predicted decrease of a full Newton step has no unit; other models need both tests.
    small = jnp.abs(slope) <= _little(loop, problem)
    spent = outcome.full & outcome.accepted & small & (slope != 0)
    agreed = loop.flat & (outcome.predicted <= _little(loop, problem))
    optimal = outcome.optimal | ((spent | agreed) & ~states.measured(loop.state))

    params = tree.where(optimal, loop.params, params)
    still, moved = _movement(params, loop.params)
    history = loop.history
    if history is not None:  # records beyond its length are dropped
        record = (loop.value, loop.grad_norm, outcome.scale, outcome.accepted)
        rows = zip(history, record, strict=True)
        history = History(*(row.at[loop.steps].set(x, mode="drop") for row, x in rows))
    if problem.callback is not None:
        jax.debug.callback(problem.callback, loop.steps, loop.value, loop.grad_norm)
    return loop._replace(
        params=params,
        state=states.undone(optimal, loop.state, jax.tree.map(states.settled, state)),
        moved=moved,
        cut=cut,
        still=jnp.where(still, loop.still + 1, 0).astype(jnp.int32),
        promised=jnp.where(still, jnp.fmax(loop.promised, outcome.predicted), 0).astype(dtype),
        passed=outcome.passes,
        steps=loop.steps + jnp.where(optimal, 0, 1).astype(jnp.int32),
        paid=loop.paid + outcome.counts,
        history=tree.where(optimal, loop.history, history),
        status=jnp.where(optimal, Status.CONVERGED.value, loop.status).astype(jnp.int32),
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


class _Outcome(NamedTuple):
    """The outcome of an update, from the optimizer's state.

    Attributes:
      accepted: whether a trust policy took the step; true for other optimizers.
      predicted: the predicted decrease; infinity without a model.
      scale: the damping, radius or cubic weight; infinity for other optimizers.
      passes: whether the point passes the solver's optimality test.
      optimal: whether this test ends the solve.
      full: whether the step is a full Newton step that its trial confirms.
      counts: the four counts of :class:`Evaluations`.
    """

    accepted: jax.Array
    predicted: jax.Array
    scale: jax.Array
    passes: jax.Array
    optimal: jax.Array
    full: jax.Array
    counts: jax.Array


def _outcome(loop: Loop, state: Any, problem: Problem) -> _Outcome:
    ours, searches = states.find_states(state), states.find_linesearches(state)
    dtype = loop.promised.dtype
    passes, optimal, accepted = jnp.asarray(False), jnp.asarray(False), jnp.asarray(True)
    predicted, scale = jnp.full((), jnp.inf, dtype), jnp.full((), jnp.inf, dtype)
    full = jnp.asarray(False)
    values, gradients, jacobians, products = 0, 0, 0, 0
    if ours:
        step, report, trust = ours[-1].step, ours[-1].step.report, ours[-1].trust
        passes, accepted = report.optimality <= problem.tol, trust.accepted
        predicted, scale = jnp.abs(step.predicted).astype(dtype), trust.scale.astype(dtype)
        # The step is already computed; near f = 0 it may double the correct digits, so take it.
        # Only once: at rounding level a decrease by a tenth is chance. Gain +∞: none computed.
        computed = ~jnp.isposinf(trust.gain)
        made = jnp.where(computed, trust.gain, 0) * predicted
        gains = accepted & (made > 0.1 * jnp.abs(loop.value))
        optimal = passes & (loop.passed | ~gains)
        full = report.full & (~computed | (jnp.abs(trust.gain - 1) <= 0.5))
        values = report.trial_evaluations + jnp.where(computed, 1, 0)
        jacobians, products = report.jacobians, report.products
        products = jnp.where(jacobians > 0, 0, products)
    if searches:
        info = searches[-1].info
        gradients = info.num_linesearch_steps
        full = full & (getattr(info, "curvature_error", jnp.inf) <= 0)
    counts = [jnp.asarray(c, jnp.int32) for c in (values, gradients, jacobians, products)]
    return _Outcome(accepted, predicted, scale, passes, optimal, full, jnp.stack(counts))


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
