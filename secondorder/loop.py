"""One loop around any Optax optimizer: when it ends, what it may claim, what it has paid."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from secondorder import tree
from secondorder.objective import Objective, Stationary, held
from secondorder.solvers.base import Prepared
from secondorder.transform import find_linesearches, find_states
from secondorder.tree import Params

PATIENCE = 20  # updates in a row that change nothing before the run is called stagnated


class Status(enum.IntEnum):
    """Why a solve ended; carried as an integer through ``jit``. Only ``CONVERGED`` is a success."""

    sentence: str

    def __new__(cls, value: int, sentence: str):
        member = int.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

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
    """What a solve paid.

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
    """What happened at each step, for as many steps as there is room; NaN and false beyond.

    Attributes:
      value, grad_norm: at the point the step starts from.
      scale: the damping, radius or cubic weight after the step; NaN for other optimizers.
      accepted: whether the step was taken.
    """

    value: jax.Array
    grad_norm: jax.Array
    scale: jax.Array
    accepted: jax.Array


class Loop(NamedTuple):
    """What the loop carries, all of it: a solve goes on from here bit for bit."""

    params: Params
    state: Any
    value: jax.Array
    grad_norm: jax.Array
    grad: Params
    moved: jax.Array  # whether value and gradient must be evaluated anew
    last: tuple[Params, jax.Array, jax.Array]  # the last point known to be finite
    first_size: jax.Array  # |f| at the start
    steepest: jax.Array  # the largest scaled gradient seen
    still: jax.Array  # updates in a row that changed nothing
    promised: jax.Array  # the largest decrease predicted in them
    steps: jax.Array
    evaluations: Evaluations
    history: History | None
    status: jax.Array


class Problem(NamedTuple):
    """What a solve is asked.

    Attributes:
      fn: the objective, stationary.
      optimizer: an Optax transformation with extra arguments.
      tol, max_steps: when to stop.
      box: ``None`` or the bounds ``(lower, upper)``, trees like the parameters.
      callback: ``None`` or a function of ``(steps, value, grad_norm)``, called on the host.
    """

    fn: Objective | Stationary
    optimizer: optax.GradientTransformationExtraArgs
    tol: Any
    max_steps: Any
    box: tuple[Params, Params] | None = None
    callback: Callable | None = None


def begin(problem: Problem, params: Params, history: int) -> Loop:
    """The loop before its first step."""
    dtype = tree.dtype(params)
    value_dtype = jax.eval_shape(problem.fn, params).dtype
    nan = lambda *shape, dtype=dtype: jnp.full(shape, jnp.nan, dtype)
    count = lambda: jnp.zeros((), jnp.int32)
    state = jax.tree.map(settled, problem.optimizer.init(params))
    return Loop(
        params=params,
        state=_primed(state, problem, params),
        value=nan(dtype=value_dtype),
        grad_norm=nan(),
        grad=tree.zeros_like(params),
        moved=jnp.asarray(True),
        last=(params, nan(dtype=value_dtype), nan()),
        first_size=nan(),
        steepest=jnp.zeros((), dtype),
        still=count(),
        promised=jnp.zeros((), dtype),
        steps=count(),
        evaluations=Evaluations(count(), count(), count(), count()),
        history=None
        if history == 0
        else History(
            nan(history, dtype=value_dtype), nan(history), nan(history), jnp.zeros(history, bool)
        ),
        status=jnp.asarray(Status.RUNNING.value, jnp.int32),
    )


def run(problem: Problem, start: Loop) -> Loop:
    """The loop. Its body evaluates first and tests, then updates: one gradient per step."""

    def body(loop: Loop) -> Loop:
        loop = _evaluate(problem.fn, loop)
        free = free_params(loop.params, loop.grad, problem.box)
        grad, fn = loop.grad, problem.fn
        if problem.box is not None:
            grad, fn = tree.only(free, grad), held(fn, free, problem.box)
        loop = _test(loop, grad, problem)

        def update(loop: Loop) -> Loop:
            updates, state = problem.optimizer.update(
                grad, loop.state, loop.params, value=loop.value, grad=grad, value_fn=fn
            )
            return _advance(loop, updates, state, problem)

        return jax.lax.cond(loop.status == Status.RUNNING.value, update, lambda loop: loop, loop)

    return jax.lax.while_loop(lambda loop: loop.status == Status.RUNNING.value, body, start)


def free_params(params: Params, grad: Params, box: tuple[Params, Params] | None) -> Params:
    """Which parameters may move: not those on a bound that the gradient pushes against."""
    if box is None:
        return jax.tree.map(lambda x: jnp.ones(x.shape, bool), params)
    return jax.tree.map(
        lambda x, g, low, high: ~(((x <= low) & (g >= 0)) | ((x >= high) & (g <= 0))),
        params,
        grad,
        *box,
    )


def _evaluate(fn: Callable, loop: Loop) -> Loop:
    """Value and gradient at the loop's parameters, unless they are known.

    They are after a rejected step, and after a line search that ended here and kept them.
    """
    stored = _stored(loop.state, loop.params)

    def fresh():
        value, grad = jax.value_and_grad(fn)(loop.params)
        return jnp.asarray(value, loop.value.dtype), grad

    if stored is None:
        known, kept = ~loop.moved, lambda: (loop.value, loop.grad)
    else:
        known = jnp.isfinite(stored.value)
        kept = lambda: (
            stored.value.astype(loop.value.dtype),
            tree.cast(stored.grad, loop.params),
        )
    value, grad = jax.lax.cond(known, kept, fresh)
    paid = jnp.where(known, 0, 1).astype(jnp.int32)
    return loop._replace(
        value=value,
        grad=grad,
        grad_norm=tree.norm(grad).astype(loop.grad_norm.dtype),
        moved=jnp.asarray(False),
        evaluations=loop.evaluations._replace(gradients=loop.evaluations.gradients + paid),
    )


def _test(loop: Loop, grad: Params, problem: Problem) -> Loop:
    """The tests at the loop's parameters, before an update; ``grad`` of the free parameters."""
    dtype = loop.grad_norm.dtype
    weighted = jax.tree.map(
        lambda g, x: g.astype(dtype) * jnp.maximum(jnp.abs(x).astype(dtype), 1), grad, loop.params
    )
    slope = tree.norm(weighted).astype(dtype)
    size = jnp.abs(loop.value).astype(dtype)
    first = jnp.where(jnp.isnan(loop.first_size), size, loop.first_size)
    steepest = jnp.maximum(loop.steepest, slope)
    yardstick = jnp.minimum(jnp.maximum(size, jnp.minimum(first, 1)), jnp.maximum(steepest, 1))
    converged = (slope == 0) | ((slope <= problem.tol * yardstick) & ~_measured(loop.state))
    finite = jnp.isfinite(loop.value) & jnp.isfinite(loop.grad_norm)

    status = jnp.where(loop.steps >= problem.max_steps, Status.MAX_STEPS.value, loop.status)
    status = jnp.where(loop.still >= PATIENCE, _stuck(loop.state), status)
    # The first idle update counts: after rejections a step is short because damping made it so.
    rounding = 4 * jnp.finfo(loop.value.dtype).eps * size
    spent = (loop.still >= 2) & (loop.promised <= rounding)
    status = jnp.where(spent, Status.LIMIT_OF_PRECISION.value, status)
    status = jnp.where(converged, Status.CONVERGED.value, status)
    status = jnp.where(finite, status, Status.NONFINITE.value).astype(jnp.int32)

    here = (loop.params, loop.value, loop.grad_norm)
    first_point = loop.steps == 0
    last = tree.where(finite | first_point, here, loop.last)
    params, value, norm = last
    return loop._replace(
        params=params,
        value=value,
        grad_norm=norm,
        last=last,
        first_size=first,
        steepest=steepest,
        status=status,
    )


def _measured(state: Any) -> jax.Array:
    """Whether the solver measures optimality itself (NaN: it will, at its first step)."""
    ours = find_states(state)
    return ~jnp.isinf(ours[-1].report.optimality) if ours else jnp.asarray(False)


def _stuck(state: Any) -> jax.Array:
    """Many updates changed nothing: a trust policy refused them, or an optimizer stopped moving."""
    ours = find_states(state)
    asked = ~jnp.isnan(ours[-1].trust.gain) if ours else jnp.asarray(False)
    return jnp.where(asked, Status.TRUST_LIMIT.value, Status.STAGNATED.value)


def _advance(loop: Loop, updates: Params, state: Any, problem: Problem) -> Loop:
    """The loop after an update, unless the solver found the current point to be optimal."""
    ours, searches = find_states(state), find_linesearches(state)
    dtype = loop.promised.dtype
    optimal, accepted = jnp.asarray(False), jnp.asarray(True)
    predicted, scale = jnp.full((), jnp.inf, dtype), jnp.full((), jnp.nan, dtype)
    paid = loop.evaluations
    if ours:
        report, trust = ours[-1].report, ours[-1].trust
        optimal, accepted = report.optimality <= problem.tol, trust.accepted
        predicted, scale = jnp.abs(report.predicted).astype(dtype), trust.scale.astype(dtype)
        asked = jnp.where(jnp.isnan(trust.gain), 0, 1).astype(jnp.int32)
        paid = paid._replace(
            values=paid.values + asked,
            jacobians=paid.jacobians + report.jacobians,
            products=paid.products + jnp.where(report.jacobians > 0, 0, report.products),
        )
    if searches:
        searched = searches[-1].info.num_linesearch_steps.astype(jnp.int32)
        paid = paid._replace(gradients=paid.gradients + searched)

    params = optax.apply_updates(loop.params, updates)
    if problem.box is not None:
        params = jax.tree.map(jnp.clip, params, *problem.box)
    params = tree.where(optimal, loop.params, params)
    eps = jnp.finfo(tree.dtype(loop.params)).eps
    quiet = jax.tree.map(
        lambda new, x: jnp.all(jnp.abs(new - x) <= eps * jnp.abs(x)), params, loop.params
    )
    same = jax.tree.map(lambda new, x: jnp.all(new == x), params, loop.params)
    still = jnp.all(jnp.asarray(jax.tree.leaves(quiet), bool))
    moved = ~jnp.all(jnp.asarray(jax.tree.leaves(same), bool))

    history = loop.history
    if history is not None:  # beyond the room there is, records are dropped
        record = (loop.value, loop.grad_norm, scale, accepted)
        rows = zip(history, record, strict=True)
        history = History(*(row.at[loop.steps].set(x, mode="drop") for row, x in rows))
    if problem.callback is not None:
        jax.debug.callback(problem.callback, loop.steps, loop.value, loop.grad_norm)
    return loop._replace(
        params=params,
        state=tree.where(optimal, loop.state, jax.tree.map(settled, state)),
        moved=moved,
        still=jnp.where(still, loop.still + 1, 0).astype(jnp.int32),
        promised=jnp.where(still, jnp.fmax(loop.promised, predicted), 0).astype(dtype),
        steps=loop.steps + jnp.where(optimal, 0, 1).astype(jnp.int32),
        evaluations=paid,
        history=tree.where(optimal, loop.history, history),
        status=jnp.where(optimal, Status.CONVERGED.value, loop.status).astype(jnp.int32),
    )


def _stored(state: Any, params: Params) -> Any | None:
    """The last link of a chain where it is a line search that holds value and gradient.

    Only the last: a transformation after it would move the parameters on, and its gradient would be
    that of another point.
    """
    while type(state) is tuple and state:  # a chain's state; a NamedTuple is a link's
        state = state[-1]
    for search in find_linesearches(state):
        same = jax.tree.structure(getattr(search, "grad", None)) == jax.tree.structure(params)
        if search is state and same and hasattr(search, "value"):
            return search
    return None


def _primed(state: Any, problem: Problem, params: Params) -> Any:
    """The first state, with room for the factors that a solver keeps of a point.

    Their shapes follow from the objective, which ``init`` does not see; one abstract update shows
    them. Zeros are never read: the first update is not a second trial.
    """
    is_solver = lambda x: isinstance(x, Prepared)
    if not any(map(is_solver, jax.tree.leaves(state, is_leaf=is_solver))):
        return state

    def one_update(state, params):
        fn = problem.fn
        value, grad = jax.value_and_grad(fn)(params)
        update = problem.optimizer.update
        return update(grad, state, params, value=value, grad=grad, value_fn=fn)[1]

    shapes = jax.eval_shape(one_update, state, params)

    def fill(old, shape):
        if not is_solver(old):
            return old
        return old._replace(factors=tree.zeros_like(shape.factors))

    return jax.tree.map(fill, state, shapes, is_leaf=is_solver)


def settled(x: Any) -> Any:
    """An array whose dtype is its own, not a weak one that the loop would have to promote."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return jax.lax.convert_element_type(x, x.dtype)
