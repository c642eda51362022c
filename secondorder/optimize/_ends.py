"""The state of a loop before its first step, after its last one, and on its continuation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from secondorder import state as states
from secondorder import tree
from secondorder.objectives._at_point import AtPoint
from secondorder.optimize._evaluation import value_grad_model
from secondorder.optimize._packing import Packed, Packing
from secondorder.optimize._records import Evaluations, History, Loop, Problem, Status
from secondorder.tree import Params


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
        jax.eval_shape(lambda p: value_grad_model(problem.fn, p, True)[2], params)
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
