"""Solve to convergence: one loop around any Optax optimizer, and what it may claim."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from secondorder import losses, tree
from secondorder.methods.levenberg_marquardt import levenberg_marquardt
from secondorder.methods.newton_cg import newton_cg
from secondorder.objective import BatchedModel, Objective, Stationary
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


class Evaluations(NamedTuple):
    """What a solve paid.

    Attributes:
      values: evaluations of the objective alone (trial steps).
      gradients: evaluations of objective and gradient together.
      products: curvature-vector products (or Jacobian passes).
    """

    values: jax.Array
    gradients: jax.Array
    products: jax.Array


class Solution(NamedTuple):
    """Where a solve ended and what may be said of it; a pytree.

    Attributes:
      params: the parameters.
      value: the objective there.
      grad_norm: ``‖∇f‖₂`` there.
      steps: updates made, rejected ones included.
      evaluations: an :class:`Evaluations`.
      status: a :class:`Status`, as an integer array.
      success: whether the status is ``CONVERGED``.
      state: the optimizer's last state.
    """

    params: Params
    value: jax.Array
    grad_norm: jax.Array
    steps: jax.Array
    evaluations: Evaluations
    status: jax.Array
    success: jax.Array
    state: Any

    @property
    def message(self) -> str:
        """The status in a sentence (not under ``jit``; the first one of a batch)."""
        return Status(int(jnp.ravel(self.status)[0])).sentence


class _Loop(NamedTuple):
    params: Params
    state: Any
    value: jax.Array
    grad_norm: jax.Array
    last: tuple[Params, jax.Array, jax.Array]  # the last point known to be finite
    first_size: jax.Array  # |f| at the start
    steepest: jax.Array  # the largest scaled gradient seen
    still: jax.Array  # updates in a row that changed nothing
    promised: jax.Array  # the largest decrease predicted in them
    steps: jax.Array
    evaluations: Evaluations
    status: jax.Array


def minimize(
    value_fn: Callable[[Params], jax.Array],
    params: Params,
    optimizer: optax.GradientTransformation | None = None,
    *,
    tol: float | None = None,
    max_steps: int = 1000,
) -> Solution:
    """Minimise ``value_fn`` from ``params`` with any Optax optimizer, until converged.

    Runs in one ``lax.while_loop``, so it works under ``jit`` and ``vmap``; it traces ``value_fn``
    once, and evaluates one gradient per step. Compiled afresh at each eager call: wrap repeated
    solves in ``jax.jit``.

    Converged means ``‖g ∘ max(1, |x|)‖ ≤ tol · min(max(|f|, min(1, |f₀|)), max(1, G))``, with ``G``
    the largest left-hand side seen: relative for large and for small objectives, absolute between.
    A solver that measures optimality itself takes its place: for a least-squares curvature solved
    by ``qr`` or ``svd``, the largest cosine between the residual and a Jacobian column is at most
    ``tol``, which no rescaling of parameters or residuals changes.

    Args:
      value_fn: a scalar function of the parameters, or the Objective Gauss-Newton methods need.
      params: the start: a pytree of floating-point arrays.
      optimizer: any Optax transformation; ``None`` takes :func:`secondorder.newton_cg`.
      tol: tolerance of the test; ``None`` takes ``√ε`` (1.5e-8 in float64, 3.5e-4 in float32).
      max_steps: at most this many updates, rejected ones included.

    Returns:
      A :class:`Solution`. Failure is a status, never an exception or a NaN: the parameters are then
      the last finite ones.

    Raises:
      TypeError: parameters that are not real floating-point arrays, ``value_fn`` not callable.
      ValueError: an objective that is not a scalar; ``tol`` or ``max_steps`` not positive.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> solution = so.minimize(lambda p: jnp.sum((p - 3.0) ** 2), jnp.zeros(2))
      >>> solution.params.tolist(), so.Status(int(solution.status)).name
      ([3.0, 3.0], 'CONVERGED')
    """
    _check_arguments(value_fn, tol, max_steps)
    tree.check_real(params)
    params = jax.tree.map(_settled, params)
    fn = _traced_once(value_fn)
    shape = jax.eval_shape(fn, params)
    if not hasattr(shape, "shape") or shape.shape != ():
        raise ValueError(
            f"minimize needs an objective that returns one number, but value_fn returned {shape}. "
            "Reduce it (jnp.mean, jnp.sum), or call least_squares for a vector of residuals."
        )
    optimizer = optax.with_extra_args_support(newton_cg() if optimizer is None else optimizer)
    if tol is None:
        tol = float(jnp.finfo(tree.dtype(params)).eps) ** 0.5
    final = _run(fn, params, optimizer, tol, max_steps)
    return Solution(
        params=final.params,
        value=final.value,
        grad_norm=final.grad_norm,
        steps=final.steps,
        evaluations=final.evaluations,
        status=final.status,
        success=final.status == Status.CONVERGED.value,
        state=final.state,
    )


def least_squares(
    residual: Callable[[Params], Any],
    params: Params,
    optimizer: optax.GradientTransformation | None = None,
    *,
    tol: float | None = None,
    max_steps: int = 1000,
    loss: Callable[[Any], jax.Array] | None = None,
) -> Solution:
    """Minimise ``½ Σ residual(params)²``, by default with Levenberg-Marquardt.

    Args:
      residual: ``params ↦`` vector (or pytree of arrays) of residuals.
      params: the start: a pytree of floating-point arrays.
      optimizer: any Optax transformation; ``None`` takes :func:`secondorder.levenberg_marquardt`.
      tol: see :func:`minimize`; here mainly the cosine between residual and Jacobian columns.
      max_steps: at most this many updates, rejected ones included.
      loss: a robust loss instead of ``½ Σ r²``, such as ``huber(1.0)``.

    Raises:
      ValueError: a residual that returns one number; see also :func:`minimize`.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> rosenbrock = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> bool(so.least_squares(rosenbrock, jnp.array([-1.2, 1.0])).success)
      True
    """
    if not callable(residual):
        raise TypeError(f"least_squares needs residual to be a function, but got {residual!r}.")
    tree.check_real(params)
    params = jax.tree.map(_settled, params)
    residual = jax.jit(residual, inline=True)
    outputs = jax.tree.leaves(jax.eval_shape(residual, params))
    if len(outputs) == 1 and outputs[0].shape == ():
        raise ValueError(
            "least_squares needs a residual that returns a vector, but it returned one number. "
            "Return the residuals themselves, unsquared and unsummed (jnp.atleast_1d for a single "
            "one), or call minimize for a scalar objective."
        )
    objective = Objective(losses.half_sum_of_squares() if loss is None else loss, residual)
    optimizer = levenberg_marquardt() if optimizer is None else optimizer
    return minimize(objective, params, optimizer, tol=tol, max_steps=max_steps)


def _run(fn, params, optimizer, tol, max_steps) -> _Loop:
    """The loop. Its body evaluates first and tests, then updates: one gradient per step."""

    def body(loop: _Loop) -> _Loop:
        loop, grad = _evaluate(fn, loop)
        loop = _test(loop, grad, tol, max_steps)

        def update(loop: _Loop) -> _Loop:
            updates, state = optimizer.update(
                grad, loop.state, loop.params, value=loop.value, grad=grad, value_fn=fn
            )
            return _advance(loop, updates, state, tol)

        return jax.lax.cond(loop.status == Status.RUNNING.value, update, lambda loop: loop, loop)

    dtype = tree.dtype(params)
    zero, nothing = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    unknown = jnp.full((), jnp.nan, jax.eval_shape(fn, params).dtype)
    start = _Loop(
        params=params,
        state=_primed(jax.tree.map(_settled, optimizer.init(params)), fn, params, optimizer),
        value=unknown,
        grad_norm=jnp.full((), jnp.nan, dtype),
        last=(params, unknown, jnp.full((), jnp.nan, dtype)),
        first_size=jnp.full((), jnp.nan, dtype),
        steepest=zero,
        still=nothing,
        promised=zero,
        steps=nothing,
        evaluations=Evaluations(nothing, nothing, nothing),
        status=jnp.asarray(Status.RUNNING.value, jnp.int32),
    )
    return jax.lax.while_loop(lambda loop: loop.status == Status.RUNNING.value, body, start)


def _evaluate(fn, loop: _Loop) -> tuple[_Loop, Params]:
    """Value and gradient at the loop's parameters, from the line search's state if it has them."""
    stored = _stored(loop.state, loop.params)
    if stored is None:
        value, grad = jax.value_and_grad(fn)(loop.params)
        paid = jnp.ones((), jnp.int32)
    else:
        known = jnp.isfinite(stored.value)
        value, grad = jax.lax.cond(
            known,
            lambda p: (stored.value.astype(loop.value.dtype), tree.cast(stored.grad, p)),
            jax.value_and_grad(fn),
            loop.params,
        )
        paid = jnp.where(known, 0, 1).astype(jnp.int32)
    evaluations = loop.evaluations._replace(gradients=loop.evaluations.gradients + paid)
    norm = tree.norm(grad).astype(loop.grad_norm.dtype)
    return loop._replace(value=value, grad_norm=norm, evaluations=evaluations), grad


def _test(loop: _Loop, grad: Params, tol, max_steps) -> _Loop:
    """The tests at the loop's parameters, before an update."""
    dtype = loop.grad_norm.dtype
    weighted = jax.tree.map(
        lambda g, x: g.astype(dtype) * jnp.maximum(jnp.abs(x).astype(dtype), 1), grad, loop.params
    )
    slope = tree.norm(weighted).astype(dtype)
    size = jnp.abs(loop.value).astype(dtype)
    first = jnp.where(jnp.isnan(loop.first_size), size, loop.first_size)
    steepest = jnp.maximum(loop.steepest, slope)
    yardstick = jnp.minimum(jnp.maximum(size, jnp.minimum(first, 1)), jnp.maximum(steepest, 1))
    converged = (slope == 0) | ((slope <= tol * yardstick) & ~_measured(loop.state))
    finite = jnp.isfinite(loop.value) & jnp.isfinite(loop.grad_norm)

    status = jnp.where(loop.steps >= max_steps, Status.MAX_STEPS.value, loop.status)
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


def _advance(loop: _Loop, updates: Params, state: Any, tol) -> _Loop:
    """The loop after an update, unless the solver found the current point to be optimal."""
    ours, searches = find_states(state), find_linesearches(state)
    optimal, predicted = jnp.asarray(False), jnp.asarray(jnp.inf, loop.promised.dtype)
    values = gradients = products = jnp.zeros((), jnp.int32)
    if ours:
        report, trust = ours[-1].report, ours[-1].trust
        optimal, predicted = report.optimality <= tol, jnp.abs(report.predicted)
        products = report.products
        values = jnp.where(jnp.isnan(trust.gain), 0, 1).astype(jnp.int32)
    if searches:
        gradients = searches[-1].info.num_linesearch_steps.astype(jnp.int32)
    paid = loop.evaluations
    moved = optax.apply_updates(loop.params, updates)
    eps = jnp.finfo(tree.dtype(loop.params)).eps
    quiet = jax.tree.map(lambda u, x: jnp.all(jnp.abs(u) <= eps * jnp.abs(x)), updates, loop.params)
    still = jnp.all(jnp.asarray(jax.tree.leaves(quiet), bool))
    return loop._replace(
        params=tree.where(optimal, loop.params, moved),
        state=tree.where(optimal, loop.state, jax.tree.map(_settled, state)),
        still=jnp.where(still, loop.still + 1, 0).astype(jnp.int32),
        promised=jnp.where(still, jnp.fmax(loop.promised, predicted), 0).astype(
            loop.promised.dtype
        ),
        steps=loop.steps + jnp.where(optimal, 0, 1).astype(jnp.int32),
        evaluations=Evaluations(
            paid.values + values, paid.gradients + gradients, paid.products + products
        ),
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


def _primed(state: Any, fn: Callable, params: Params, optimizer) -> Any:
    """The first state, with room for the factors that a solver keeps of a point.

    Their shapes follow from the objective, which ``init`` does not see; one abstract update shows
    them. Zeros are never read: the first update is not a second trial.
    """
    is_solver = lambda x: isinstance(x, Prepared)
    if not any(map(is_solver, jax.tree.leaves(state, is_leaf=is_solver))):
        return state

    def one_update(state, params):
        value, grad = jax.value_and_grad(fn)(params)
        return optimizer.update(grad, state, params, value=value, grad=grad, value_fn=fn)[1]

    shapes = jax.eval_shape(one_update, state, params)

    def fill(old, shape):
        if not is_solver(old):
            return old
        return old._replace(factors=tree.zeros_like(shape.factors))

    return jax.tree.map(fill, state, shapes, is_leaf=is_solver)


def _traced_once(value_fn: Callable) -> Callable:
    """``value_fn`` behind a ``jit`` that is inlined: Python runs it once, XLA sees no boundary."""
    if not isinstance(value_fn, Objective):
        return Stationary(jax.jit(value_fn, inline=True))
    model = value_fn.model
    if isinstance(model, BatchedModel):
        model = dataclasses.replace(model, model=jax.jit(model.model, inline=True))
    else:
        model = jax.jit(model, inline=True)
    return dataclasses.replace(value_fn, model=model, stationary=True)


def _settled(x: Any) -> Any:
    """An array whose dtype is its own, not a weak one that the loop would have to promote."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return jax.lax.convert_element_type(x, x.dtype)


def _check_arguments(value_fn: Any, tol: Any, max_steps: Any) -> None:
    if not callable(value_fn):
        raise TypeError(f"minimize needs value_fn to be a function, but got {value_fn!r}.")
    if isinstance(tol, (int, float)) and not tol > 0:
        raise ValueError(f"minimize got tol={tol}; pass a positive number, or None for √ε.")
    if isinstance(max_steps, int) and max_steps < 1:
        raise ValueError(f"minimize got max_steps={max_steps}; pass a positive integer.")
