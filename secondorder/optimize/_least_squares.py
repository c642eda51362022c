"""``least_squares``: sums of squares, or of a robust loss, to convergence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from secondorder import checks, losses, tree
from secondorder.layers._jaxpr import as_one_program
from secondorder.objectives._objective import Objective
from secondorder.optimize._bounds import Bounds, Box
from secondorder.optimize._call import Options, chosen, of_params, solved, start_of
from secondorder.optimize._minimize import minimized
from secondorder.optimize._solution import Solution
from secondorder.optimize._watch import Callback, Iterate, Question, Watch, question
from secondorder.tree import Params


def least_squares(
    residual: Callable[[Params], Any],
    params: Params | Solution,
    optimizer: optax.GradientTransformation | str | None = None,
    *,
    args: tuple[Any, ...] = (),
    tol: float | None = None,
    max_steps: int | None = None,
    loss: Callable[[Any], jax.Array] | None = None,
    bounds: Bounds = None,
    history: int = 0,
    callback: Callback | None = None,
    has_aux: bool = False,
    progress: bool = False,
) -> Solution:
    """Minimise ``½ Σ residual(params)²``, by default with Levenberg-Marquardt (Moré's region).

    A residual may have derivatives of one mode alone: forward, as a loop of unknown length, or
    backward, as an adjoint solver under ``jax.custom_vjp``. The other mode is derived from it.

    Args:
      residual: ``(params, *args) ↦`` vector (or pytree of arrays) of residuals, real or complex;
        the real and the imaginary part of a complex one are residuals of their own.
      params: the start, or a :class:`Solution` to continue; see :func:`minimize`.
      optimizer: see :func:`minimize`; ``None`` takes :func:`secondorder.levenberg_marquardt`
        up to 1000 parameters and :func:`secondorder.hessian_free` beyond.
      args: further arguments of ``residual``; see :func:`minimize`.
      tol: see :func:`minimize`; here mainly the cosine between residual and Jacobian.
      max_steps: largest number of updates; see :func:`minimize`.
      loss: a robust loss instead of ``½ Σ r²``, such as ``huber(1.0)``, or any scalar function of
        the residuals.
      bounds, history, callback, progress: see :func:`minimize`.
      has_aux: whether ``residual`` returns ``(residuals, aux)``; see :func:`minimize`.

    Raises:
      ValueError: a residual that returns one number; see also :func:`minimize`.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> rosenbrock = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> bool(so.least_squares(rosenbrock, jnp.array([-1.2, 1.0])).success)
      True
    """
    options = Options(optimizer, tol, max_steps, history, callback, has_aux, progress, loss)
    return solved(within_a_solve, "least_squares", residual, options, params, args, bounds)


def within_a_solve(
    residual: Callable,
    options: Options,
    params: Params | Solution,
    args: tuple[Any, ...] = (),
    bounds: Box | None = None,
    watch: Watch = None,
) -> Solution:
    """:func:`least_squares` without checks that need values."""
    fn, loss = of_params(residual, options, args, "least_squares"), options.loss

    def vector(p: Params) -> Any:
        with checks.traced("least_squares", "residual"):
            outputs = checks.as_arrays(fn(p), "least_squares", "residual")
        leaves = jax.tree.leaves(outputs)
        if len(leaves) == 1 and jnp.shape(leaves[0]) == ():
            raise ValueError(
                "least_squares needs a residual that returns a vector, but it returned one number. "
                "Return the residuals themselves, unsquared and unsummed (jnp.atleast_1d for a "
                "single one), or call minimize for a scalar objective."
            )
        return outputs

    where = params.params if isinstance(params, Solution) else params
    name, optimizer = chosen(options.optimizer, tree.size(where), rows=True)
    inner = options._replace(optimizer=optimizer, has_aux=False)

    def solve() -> Solution:
        unit = params.unit if isinstance(params, Solution) else jnp.ones(())
        if loss is None and not isinstance(params, Solution):
            unit = jax.lax.stop_gradient(_unit(fn, start_of(params)))
        scaled = lambda r: jax.tree.map(lambda x: x / unit.astype(x.dtype), r)
        whole = vector if loss is not None else lambda p: scaled(vector(p))
        objective = Objective(losses.half_sum_of_squares() if loss is None else loss, whole)
        asks = _in_units_of(unit, question(watch))
        solution = minimized(objective, inner, params, bounds=bounds, watch=asks)
        return _in_units(dataclasses.replace(solution, method=name), unit)

    return as_one_program(solve)


def _in_units_of(unit: jax.Array, asks: Question | None) -> Question | None:
    """The question of the callback, with value and gradient in the user's units."""
    if asks is None:
        return None
    squared = lambda x: (unit * (unit * x)).astype(x.dtype)

    def in_units(active: jax.Array, iterate: Iterate) -> jax.Array:
        value, norm = squared(iterate.value), squared(iterate.grad_norm)
        return asks(active, iterate._replace(value=value, grad_norm=norm))

    return in_units


def _in_units(solution: Solution, unit: jax.Array) -> Solution:
    """The solution in the user's units, for residuals divided by ``unit`` in the loop."""
    squared = lambda x: unit * (unit * x)
    history = solution.history
    if history is not None:
        value, grad_norm = map(squared, history[:2])
        history = history._replace(value=value, grad_norm=grad_norm)
    return dataclasses.replace(
        solution,
        value=squared(solution.value),
        grad_norm=squared(solution.grad_norm),
        history=history,
        unit=unit,
    )


def _unit(residual: Callable[[Params], Any], params: Params) -> jax.Array:
    """A power of two near the largest residual if its square is out of range, else 1."""
    with checks.traced("least_squares", "residual"):
        sizes = checks.as_arrays(residual(params), "least_squares", "residual")
        peak = tree.max_abs(jax.tree.map(jnp.abs, sizes))
    limits = jnp.finfo(peak.dtype)
    extreme = (peak < float(limits.tiny) ** 0.25) | (peak > float(limits.max) ** 0.25)
    return jnp.where(extreme, tree.power_of_two(peak), 1)
