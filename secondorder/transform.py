"""The combinator: an Optax transformation from curvature, solver and trust."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from secondorder import settings, tree
from secondorder.curvature._base import Curvature
from secondorder.objectives._at_point import at_point
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver, charged, prepares
from secondorder.state import CurvatureState, Needs
from secondorder.step import Report, Step
from secondorder.tree import Params
from secondorder.tree._gaps import masked_like
from secondorder.trust._attempt import Attempt
from secondorder.trust._base import Trust, TrustState

REACH = 10.0  # first radius, relative to the scaled length of the parameters


@settings.checked(trust=settings.POLICY)
def scale_by_curvature(
    curvature: Curvature, solver: Solver, trust: Trust, *, burn_in: int | jax.Array = 0
) -> optax.GradientTransformationExtraArgs:
    """The step ``d = −(B + λ I)⁻¹ g`` from a curvature, a solver and a trust policy.

    Unlike Optax's ``scale_by_*``, the updates *are* the step, sign included: the trust policy has
    tried this step, so pass it unchanged to ``optax.apply_updates``. A rejected step is an update
    of zeros, and the memories keep their old values.

    ``update(grads, state, params, value=…, grad=…, value_fn=…)`` follows ``optax.lbfgs``; ``value``
    saves a closed-loop policy one evaluation; unknown keywords are ignored. ``value_fn`` is
    optional if the curvature needs only gradients and the policy is open-loop.

    ``grad`` is the gradient of ``value_fn``. It is needed if an earlier part of an Optax chain
    changes the gradient (clipping, decay, an average): the step then solves for the changed
    gradient g̃, and a trial compares values of ``f(p + d) + (g̃ − g)·d``, which has that gradient.

    Args:
      curvature: source of ``B``, such as ``exact(hessian)``.
      solver: solver of the model, such as ``solvers.cg()``.
      trust: policy for λ (or a radius) and acceptance, such as ``trust.damping()``.
      burn_in: number of first updates that only change the state of the curvature; parameters,
        trust and solver keep theirs. A non-finite update is not counted. (``minimize`` reports
        ``STAGNATED`` after 20.)

    Raises:
      ValueError: a solver that reads a radius with a policy that gives damping, or the reverse; at
        update: no ``params``, no ``value_fn``, or gradients of another structure than ``params``.
      TypeError: integer or complex parameters.

    Example:
      >>> import jax, jax.numpy as jnp, optax, secondorder as so
      >>> f = lambda p: jnp.sum((p - 1.0) ** 2)
      >>> opt = so.scale_by_curvature(so.exact(so.hessian), so.solvers.direct(), so.trust.fixed())
      >>> p = jnp.zeros(2)
      >>> updates, _ = opt.update(jax.grad(f)(p), opt.init(p), p, value_fn=f)
      >>> optax.apply_updates(p, updates).tolist()
      [1.0, 1.0]
    """
    _check_pair(solver, trust)
    init = functools.partial(_init, curvature, solver, trust)

    def update(
        updates, state, params=None, *, value=None, grad=None, value_fn: Any = None, **unused
    ):
        del unused
        _check_call(updates, params, value_fn, curvature.needs_value_fn or trust.evaluates)
        if not tree.size(params):
            return updates, state
        objective, scale = at_point(value_fn, "update"), trust.scale(state.trust)
        shown = objective.curved
        operator, averages = curvature.at(updates, state.curvature, params, shown, scale)
        grads, own = tree.accumulator(updates), shown is objective
        quadratic = Quadratic(grads, operator, objective.held, own)
        keeps = state.needs.room is not None and objective.stationary
        factors, memory, cost, point = _prepared(solver, quadratic, state, keeps)
        measure = lambda direction: solver.measure(factors, memory, direction)
        if trust.gives == "radius" and solver.sizes is not None:
            sizes = solver.sizes(factors, tree.accumulator(params), grads)
            scale = _finite_radius(scale, measure(sizes))
        step, after = solver.solve(quadratic, factors, memory, scale)
        attempt = Attempt(
            charged(step, cost),
            quadratic,
            params,
            objective,
            value,
            measure=measure,
            radius=scale,
            watched=_numbers(averages),
            lazy=trust.lazy,
            solve=lambda scale: solver.solve(quadratic, factors, memory, scale)[0],
            shift=_difference(updates, grad) if trust.evaluates else None,
        )
        # A batch with a non-finite value or gradient has no information about step lengths.
        tells = attempt.is_finite_here() if trust.evaluates else tree.all_finite(grads)
        step, told = trust.update(attempt, state.trust)
        trusted = tree.where(tells, told, state.trust._replace(gain=told.gain, accepted=tells))
        taken, after = tree.cast(step.direction, updates), solver.remember(after, step.direction)
        outcome = _Outcome(trusted.accepted, trusted.accepted, trusted, step.without_vectors())
        if not never:
            gathers = state.count - state.rejections < burn_in
            sound = tree.all_finite((grads, _numbers(averages)))
            outcome = _gathering(outcome, gathers, sound, state.trust)
        return tree.where(outcome.accepted, taken, tree.zeros_like(taken)), CurvatureState(
            count=state.count + 1,
            rejections=state.rejections + (~outcome.learns).astype(jnp.int32),
            products=state.products + step.report.products,
            curvature=tree.where(outcome.learns, averages, state.curvature),
            solver=tree.where(outcome.accepted, after, state.solver),
            trust=outcome.trust,
            step=outcome.step,
            point=point,
            needs=state.needs,
        )

    never = isinstance(burn_in, int) and burn_in == 0
    return optax.GradientTransformationExtraArgs(init, update)


def _finite_radius(radius: jax.Array, length: jax.Array) -> jax.Array:
    """The radius; an infinite one as ``10 ‖D x‖``, since a whole first step may end far away."""
    reach = (REACH * length).astype(radius.dtype)
    return jnp.where(jnp.isfinite(radius) | (reach == 0), radius, reach)


def _check_pair(solver: Solver, trust: Trust) -> None:
    if trust.gives not in ("any", solver.reads):
        raise ValueError(
            f"The solver reads a {solver.reads}, but the trust policy gives a {trust.gives}. "
            "Pair region solvers such as steihaug() with trust.radius(), cubic ones with "
            "trust.cubic(), the others with trust.damping(); trust.fixed() serves all."
        )


def _init(curvature: Curvature, solver: Solver, trust: Trust, params: Params) -> CurvatureState:
    """The state before the first update."""
    tree.check_real(params)
    # Each field an array of its own: a buffer that appears twice cannot be donated.
    none = lambda: jnp.zeros((), jnp.int32)
    # An empty tree of parameters has no optimality to measure.
    unmeasured = solver.measures and tree.size(params)
    known = float(jnp.finfo(tree.dtype(params)).max) if unmeasured else float("inf")
    unused = Report(iterations=0, optimality=known, order=0, fraction=0.0)
    step = Step(report=unused).settled(tree.dtype(params))
    memories = curvature.init(params), solver.init(params)
    jacobian = solver.takes_jacobian and not curvature.without_jacobian
    # Factors stay valid when the scalar changes, unless the curvature depends on the scalar.
    room = prepares(solver) and trust.evaluates and not curvature.reads_scale
    needs = Needs(*(optax.EmptyState() if used else None for used in (jacobian, room)))
    counts = none(), none(), none()
    return CurvatureState(*counts, *memories, trust.init(params), step, None, needs)


class _Outcome(NamedTuple):
    """The outcome of an update.

    Attributes:
      accepted: whether the step is taken.
      learns: whether the state of the curvature is updated; otherwise the update is a rejection.
      trust: the new state of the trust policy.
      step: the step for the state.
    """

    accepted: jax.Array
    learns: jax.Array
    trust: TrustState
    step: Step


def _gathering(
    outcome: _Outcome, gathers: jax.Array, sound: jax.Array, trust: TrustState
) -> _Outcome:
    """The outcome, or during burn-in an update of the curvature alone, if it is ``sound``."""
    # No step is taken during burn-in, so the precision test of the loop must not fire.
    predicted = jnp.where(gathers, -jnp.inf, outcome.step.predicted)
    return _Outcome(
        outcome.accepted & ~gathers,
        jnp.where(gathers, sound, outcome.accepted),
        tree.where(gathers, trust._replace(accepted=sound), outcome.trust),
        outcome.step._replace(predicted=predicted),
    )


def _prepared(
    solver: Solver, quadratic: Quadratic, state: CurvatureState, keeps: bool
) -> tuple[Any, Any, Cost, Any]:
    """Factors and memory at a point, their cost, and the factors for the state to keep.

    If the objective is the same at every update, the factors stay valid after a rejection and are
    reused at no cost. For any other objective nothing is kept.
    """
    again = ~state.trust.accepted if keeps else None
    old, known = state.solver, []
    is_none = lambda x: x is None

    def fresh():
        factors, memory, cost = solver.prepare(quadratic, old)
        # A kernel is compiled for every array that leaves a branch; static counts need none.
        known.extend(count if isinstance(count, int) else None for count in cost)
        counts = [jnp.asarray(count, jnp.int32) for count in cost if not isinstance(count, int)]
        changed = jax.tree.map(lambda new, old: None if new is old else new, memory, old)
        return (factors, changed), counts

    if again is None or state.point is None:
        point, counts = fresh()
        free = False
    else:
        nothing = lambda: (state.point, [jnp.zeros((), jnp.int32) for k in known if k is None])
        point, counts = jax.lax.cond(~again, fresh, nothing)
        free = again
    left = iter(counts)
    cost = Cost(*(next(left) if k is None else jnp.where(free, 0, k) for k in known))
    factors, changed = point
    memory = jax.tree.map(lambda new, x: x if new is None else new, changed, old, is_leaf=is_none)
    return factors, memory, cost, point if keeps and jax.tree.leaves(factors) else None


def _difference(updates: Params, grad: Params | None) -> Params | None:
    """``g̃ − g``; ``None`` for the same arrays, or without a given gradient."""
    if grad is None:
        return None
    if jax.tree.structure(grad) != jax.tree.structure(updates):  # Optax masks only the updates
        grad = masked_like(updates, grad)
    if jax.tree.structure(grad) != jax.tree.structure(updates):
        raise ValueError(
            "update got a grad of another tree than the gradients. Before a method leave "
            "optax.flatten out, since methods take any tree."
        )
    pairs = zip(jax.tree.leaves(updates), jax.tree.leaves(grad), strict=True)
    if all(a is b for a, b in pairs):
        return None
    wide = tree.accumulator
    return jax.tree.map(jnp.subtract, wide(updates), wide(grad))


def _numbers(state: Any) -> list[jax.Array]:
    """The floating-point leaves of a state."""
    return [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]


def _check_call(grads, params, value_fn, needs_value_fn: bool) -> None:
    call = "opt.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)"
    if params is None:
        raise ValueError(f"update needs params, to know where the curvature is. Write {call}.")
    if value_fn is None and needs_value_fn:
        raise ValueError(
            f"update needs value_fn, the objective as a function of params, to take its curvature. "
            f"Write {call}; secondorder.compose(loss, model) makes one. (Flax's "
            "TrainState.apply_gradients hands no keyword on: call state.tx.update, state.replace.)"
        )
    if value_fn is not None and not callable(value_fn):
        raise TypeError(
            f"value_fn must be a function of params, but is {value_fn!r}. Write {call}."
        )
    tree.check_real(params)
    tree.check_match(grads, params, "the gradients", "params")
