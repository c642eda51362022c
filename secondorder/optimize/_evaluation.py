"""Value, gradient and Jacobian at the current point of a loop."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder import state as states
from secondorder import tree
from secondorder.objectives._models import Known
from secondorder.operators._jacobian import linearize
from secondorder.optimize._convergence import shown
from secondorder.optimize._records import Evaluations, Loop, Status
from secondorder.tree import Params


def evaluated(fn: Callable, loop: Loop) -> Loop:
    """The loop with value and gradient at its parameters.

    Reused after a rejected step, and after a line search that ended here and stored them (unless
    the optimizer uses a Jacobian, which needs an evaluation anyway).
    """
    stored = states.stored(loop.state, loop.params) if loop.model is None else None

    def fresh():
        value, grad, model = value_grad_model(fn, loop.params, loop.model is not None)
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


def value_grad_model(fn: Callable, params: Params, jacobian: bool):
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
