"""Driver for any Optax optimizer: evaluate, test, update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder import state as states
from secondorder import tree
from secondorder.objectives._at_point import AtPoint, Face
from secondorder.operators._dense import ravel
from secondorder.optimize._advance import advanced
from secondorder.optimize._bounds import free_params
from secondorder.optimize._convergence import after_tests
from secondorder.optimize._evaluation import evaluated
from secondorder.optimize._packing import Packed, Packing
from secondorder.optimize._records import Loop, Problem, Status
from secondorder.optimize._watch import Iterate, Question


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
        loop = evaluated(problem.fn, loop)
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
            return packing.pack(advanced(loop, updates, state, face, problem))

        running = loop.status == Status.RUNNING.value
        return jax.lax.cond(running, update, lambda packed: packed, packing.pack(loop))

    return body


def _asked(loop: Loop, active: jax.Array, question: Question) -> Loop:
    """The loop after the callback, which may end it."""
    ours = states.find_states(loop.state)
    scale = ours[-1].trust.scale if ours else jnp.full((), jnp.inf, loop.value.dtype)
    at = Iterate(loop.steps, loop.params, loop.value, loop.grad_norm, scale)
    stops = question(active, at)
    stops = stops & (loop.status == Status.RUNNING.value)
    status = jnp.where(stops, Status.STOPPED.value, loop.status)
    return loop._replace(status=status.astype(jnp.int32))
