"""The combinator: an Optax transformation from curvature, solver and trust."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from secondorder import attempt, tree
from secondorder.curvature._base import Curvature
from secondorder.objectives._objective import checked, face_of, is_stationary
from secondorder.objectives._with_curvature import curved
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import (
    Cost,
    Solver,
    charged,
    prepares,
)
from secondorder.state import CurvatureState, Needs
from secondorder.step import Report, Step
from secondorder.tree import Params
from secondorder.trust._base import Trial, Trust


def scale_by_curvature(
    curvature: Curvature, solver: Solver, trust: Trust, *, burn_in: Any = 0
) -> optax.GradientTransformationExtraArgs:
    """A step of ``B d = −g`` from a curvature, a solver and a trust policy.

    Unlike Optax's ``scale_by_*``, the updates *are* the step (descent included): a trust policy has
    tried exactly this step, so pass it to ``optax.apply_updates`` as it is. A rejected step is an
    update of zeros, and the memories stay those of before.

    ``update(grads, state, params, value=…, grad=…, value_fn=…)`` follows ``optax.lbfgs``; ``value``
    saves a closed-loop policy one evaluation; ``grad`` and unknown keywords are ignored. Where the
    curvature needs gradients alone and the policy is open-loop, ``value_fn`` may be left out.

    Args:
      curvature: WHAT, e.g. ``exact(hessian)``.
      solver: HOW, e.g. ``solvers.cg()``.
      trust: HOW FAR, e.g. ``trust.damping()``.
      burn_in: number of first updates that change the curvature's memory alone; parameters, trust
        and solver stay as they are. An update that is not finite is not counted. (``minimize``
        reports ``STAGNATED`` after 20.)

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
    if trust.gives not in ("any", solver.reads):
        raise ValueError(
            f"The solver reads a {solver.reads}, but the trust policy gives a {trust.gives}. "
            "Pair region solvers such as steihaug() with trust.radius(), cubic ones with "
            "trust.cubic(), the others with trust.damping(); trust.fixed() serves all."
        )

    def init(params: Params) -> CurvatureState:
        tree.check_real(params)
        # Each field an array of its own: a buffer that appears twice cannot be donated.
        none = lambda: jnp.zeros((), jnp.int32)
        # An empty tree of parameters has no optimality to measure.
        unmeasured = solver.measures and tree.size(params)
        known = float(jnp.finfo(tree.dtype(params)).max) if unmeasured else float("inf")
        unused = Report(iterations=0, optimality=known, order=0)
        step = Step(fraction=0.0, report=unused).settled(tree.dtype(params))
        memories = curvature.init(params), solver.init(params)
        jacobian = solver.takes_jacobian and not curvature.without_jacobian
        # Factors stay valid when the scalar changes, unless the curvature depends on the scalar.
        room = prepares(solver) and trust.evaluates and not curvature.reads_scale
        needs = Needs(jacobian, room)
        counts = none(), none(), none()
        return CurvatureState(*counts, *memories, trust.init(params), step, None, needs)

    def update(
        updates, state, params=None, *, value=None, grad=None, value_fn: Any = None, **unused
    ):
        del grad, unused
        grads = updates
        _check_call(grads, params, value_fn, curvature.needs_value_fn or trust.evaluates)
        if not tree.size(params):
            return grads, state
        value_fn = checked(value_fn, "update")
        g = tree.accumulator(grads)
        scale = trust.scale(state.trust)
        shown = curved(value_fn)
        operator, curvature_state = curvature.at(grads, state.curvature, params, shown, scale)
        quadratic = Quadratic(g, operator, _held(value_fn))
        # The point is unchanged after a rejection, if the objective is the same at every update.
        again = ~state.trust.accepted if state.needs.room and is_stationary(value_fn) else None
        (factors, memory), cost, point = _prepared(solver, quadratic, state, again)
        step, solver_state = solver.solve(quadratic, factors, memory, scale)
        step = charged(step, cost)
        if shown is not value_fn:  # the angles belong to the residuals of another objective
            step = step.reporting(optimality=jnp.full_like(step.report.optimality, jnp.inf))
        if trust.evaluates:
            step = attempt.backtracked(step, params, value_fn)
        if trust.searches:
            if value is None:
                value = value_fn(params)
            step = attempt.searched(step, g, params, value, value_fn, trust.searches)
        else:
            step = attempt.bent(step)
        if trust.evaluates:  # an open-loop step may be searched along, past a kink at a bound
            measure = lambda direction: solver.measure(factors, memory, direction)
            step = attempt.within_box(step, Quadratic(g, operator), params, value_fn, measure)
        solver_state = solver.remember(solver_state, step.direction)
        taken = tree.cast(step.direction, grads)

        # An infinite second moment gives a zero step at every later update; reject it.
        finite = tree.all_finite((g, taken, _numbers(curvature_state)))
        gain = lambda: attempt.gain(value_fn, params, value, g, taken, step.predicted, trust.lazy)
        trial = Trial(gain, step.predicted, step.length, step.boundary, finite, step.fraction)
        trust_state = trust.update(trial, state.trust)

        accepted = learns = trust_state.accepted
        rejected = state.rejections + jnp.where(accepted, 0, 1).astype(jnp.int32)
        reported = step.without_vectors()
        if not never:
            gathers = state.count - state.rejections < burn_in
            sound = tree.all_finite(_numbers(curvature_state))
            missed = state.rejections + jnp.where(sound, 0, 1).astype(jnp.int32)
            rejected = jnp.where(gathers, missed, rejected)
            accepted, learns = accepted & ~gathers, jnp.where(gathers, sound, accepted)
            trust_state = tree.where(gathers, state.trust, trust_state)
            # No step was taken, so the precision test of the loop must not fire.
            predicted = jnp.where(gathers, -jnp.inf, reported.predicted)
            reported = reported._replace(predicted=predicted)
        return tree.where(accepted, taken, tree.zeros_like(taken)), CurvatureState(
            count=state.count + 1,
            rejections=rejected,
            products=state.products + step.report.products,
            curvature=tree.where(learns, curvature_state, state.curvature),
            solver=tree.where(accepted, solver_state, state.solver),
            trust=trust_state,
            step=reported,
            point=point,
            needs=state.needs,
        )

    never = isinstance(burn_in, int) and burn_in == 0
    return optax.GradientTransformationExtraArgs(init, update)


def _prepared(
    solver: Solver, quadratic: Quadratic, state: CurvatureState, again: jax.Array | None
) -> tuple[tuple[Any, Any], Cost, Any]:
    """Factors and memory at a point, their cost, and the part of them that the state keeps.

    Args:
      again: whether the point is that of the last update; its factors are then reused at no cost.
        ``None`` where this cannot be determined: then nothing is kept.
    """
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
    keeps = again is not None and jax.tree.leaves(factors)
    return (factors, memory), cost, point if keeps else None


def _held(value_fn: Any) -> Params | None:
    """Mask of the parameters held at a bound of the objective; ``None`` without bounds."""
    face = face_of(value_fn)
    return None if face is None else jax.tree.map(jnp.logical_not, face.free)


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
            f"Write {call}; secondorder.compose(loss, model) makes one."
        )
    if value_fn is not None and not callable(value_fn):
        raise TypeError(
            f"value_fn must be a function of params, but is {value_fn!r}. Write {call}."
        )
    tree.check_real(params)
    tree.check_match(grads, params, "the gradients", "params")
