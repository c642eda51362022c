"""``minimize``: any Optax optimizer to convergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from secondorder import checks, tree
from secondorder.layers._jaxpr import as_one_program
from secondorder.optimize._bounds import Bounds, Box, active, box_of, free_params
from secondorder.optimize._call import Options, chosen, max_steps_of, of_params, solved, start_of
from secondorder.optimize._ends import begin, ended, resumed
from secondorder.optimize._implicit import attach, opened
from secondorder.optimize._loop import run
from secondorder.optimize._records import Evaluations, Loop, Problem, Status
from secondorder.optimize._solution import Solution
from secondorder.optimize._watch import Callback, Watch, question
from secondorder.tree import Params


def minimize(
    value_fn: Callable[[Params], jax.Array],
    params: Params | Solution,
    optimizer: optax.GradientTransformation | str | None = None,
    *,
    args: tuple[Any, ...] = (),
    tol: float | None = None,
    max_steps: int | None = None,
    bounds: Bounds = None,
    history: int = 0,
    callback: Callback | None = None,
    has_aux: bool = False,
    progress: bool = False,
) -> Solution:
    """Minimise ``value_fn`` from ``params`` with any Optax optimizer, until converged.

    Runs in one ``lax.while_loop``, so it works under ``jit`` and ``vmap``; it traces
    ``value_fn`` at most three times, and evaluates one gradient per step. The compiled program is
    kept: a later call with the same function, settings and shapes runs it again. Data that change
    from call to call belong into ``args``; an array in the closure of ``value_fn`` is part of the
    function, and another array there compiles again. The solution is differentiable, forward and
    reverse, with respect to everything ``value_fn`` closes over and to the bounds, by the implicit
    function theorem: a parameter on a bound moves with it.

    Converged means that the decrease still possible is negligible, in any unit of the parameters:

    * ``Σ gᵢ²/cᵢ ≤ tol² |f|`` (of ``min(|f₀|, 1)`` where f has fallen below ``tol |f₀|``), with
      ``cᵢ`` a lower bound of the curvature along parameter i, ``yᵢ²/sᵀy`` of the last steps ``s``
      that changed the gradient by ``y``; and where the optimizer has a model with second
      derivatives, the predicted decrease of its step is as small;
    * or the decrease ``|g·d|`` of a full Newton step is as small; or ``g = 0``.

    So a start near a solution still takes a step or two. Solvers on the rows of a least-squares (or
    robust) loss have a test of their own: the cosine between the residual and the span of the
    Jacobian's columns is at most ``tol`` (or that with every single column ``tol/5``, where the
    Jacobian is singular at the solution). With bounds, ``g`` is the gradient of the parameters not
    held at a bound.

    Args:
      value_fn: ``(params, *args) ↦`` a scalar, or, without ``args``, the :class:`Objective` that
        Gauss-Newton methods need.
      params: the start: a pytree of floating-point arrays; or a :class:`Solution` of the same
        problem, to continue it from its exact state.
      optimizer: any Optax transformation, or the name of a method with its defaults, such as
        ``"bfgs"``; ``None`` takes :func:`secondorder.trust_region_newton`
        up to 100 parameters and :func:`secondorder.newton_cg` beyond.
      args: further arguments of ``value_fn``, trees of arrays; the solution is differentiable with
        respect to them.
      tol: tolerance of the test; ``None`` takes ``√ε`` (1.5e-8 in float64, 3.5e-4 in float32).
      max_steps: largest number of updates in all, rejected ones included; ``None`` takes 1000, or
        ten times the number of parameters if that is more.
      bounds: ``(lower, upper)``, numbers or trees like ``params``, or dictionaries of some of them
        by name; or one dictionary ``{name: (lower, upper)}``, with ``None`` for no bound. Every
        step is feasible, and a start outside is moved onto the box (``Solution.projected``).
      history: number of steps to record (:class:`History`).
      callback: called on the host with an :class:`Iterate` at every point, the last one included;
        the solve ends with the status ``STOPPED`` where it returns ``True`` or raises
        ``StopIteration``. Under ``vmap`` it is called for each solve.
      has_aux: whether ``value_fn`` returns ``(value, aux)``; ``Solution.aux`` is then ``aux`` at
        the solution, from one more evaluation.
      progress: whether to show steps, value, gradient, damping and time on the errors' stream while
        it runs: a panel with ``rich`` in a terminal or a notebook, else lines. It costs a call of
        the host a step; the time left is at most that of ``max_steps``.

    Returns:
      A :class:`Solution`. Failure is a status, never an exception or a NaN: the parameters are then
      the last finite ones.

    Raises:
      TypeError: parameters that are not real floating-point arrays, ``value_fn`` not callable or
        without a real value, an ``optimizer`` that is not an Optax transformation.
      ValueError: an objective that is not a scalar, bounds that cross or do not fit the parameters,
        ``tol`` or ``max_steps`` not positive.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> solution = so.minimize(lambda p: jnp.sum((p - 3.0) ** 2), jnp.zeros(2))
      >>> solution.params.tolist(), so.Status(int(solution.status)).name
      ([3.0, 3.0], 'CONVERGED')
    """
    options = Options(optimizer, tol, max_steps, history, callback, has_aux, progress)
    return solved(minimized, "minimize", value_fn, options, params, args, bounds)


def minimized(
    value_fn: Callable,
    options: Options,
    params: Params | Solution,
    args: tuple[Any, ...] = (),
    bounds: Box | None = None,
    watch: Watch = None,
) -> Solution:
    """:func:`minimize` without checks that need values."""
    objective = of_params(value_fn, options, args, "minimize")
    earlier = params if isinstance(params, Solution) else None
    params = start_of(earlier.params if earlier else params)
    box = None if bounds is None else box_of(bounds, params)
    inside = params if box is None else jax.tree.map(jnp.clip, params, *box)
    name, optimizer = chosen(options.optimizer, tree.size(params))
    tol, eps = options.tol, float(jnp.finfo(tree.dtype(params)).eps)

    build, theta = opened(objective, jax.lax.stop_gradient(inside))
    fn = build(jax.lax.stop_gradient(theta))
    jax.eval_shape(checks.number(fn, "minimize"), inside)
    problem = Problem(
        fn=fn,
        optimizer=optax.with_extra_args_support(optimizer),
        tol=eps**0.5 if tol is None else tol,
        max_steps=max_steps_of(options, tree.size(params)),
        box=jax.lax.stop_gradient(box),  # the solution's derivative is implicit
        question=question(watch),
    )

    def solve() -> Solution:
        if earlier is None:
            loop = begin(problem, jax.lax.stop_gradient(inside), options.history)
        else:
            loop = resumed(problem, earlier.loop)
        return _ended(run(problem, loop), build, theta, params, inside, box, name)

    return as_one_program(solve)


def _ended(
    end: Loop,
    build: Callable,
    theta: Any,
    start: Params,
    inside: Params,
    box: Box | None,
    name: str,
) -> Solution:
    """The solution from the end of a loop, differentiable in ``theta`` and ``box``."""
    fixed = jax.lax.stop_gradient(box)
    free = free_params(end.params, end.grad, fixed)
    held = active(end.params, end.grad, fixed)
    params, value = attach(build, theta, end.params, end.value, held, box)
    pairs = zip(jax.tree.leaves(start), jax.tree.leaves(inside), strict=True)
    moved = [jnp.any(a != b) for a, b in pairs]
    return Solution(
        params=params,
        value=value,
        grad_norm=end.grad_norm if box is None else tree.norm(tree.only(free, end.grad)),
        steps=end.steps,
        evaluations=Evaluations(*end.paid),
        status=end.status,
        success=end.status == Status.CONVERGED.value,
        projected=jnp.any(jnp.asarray(moved, bool)),
        history=end.history,
        loop=ended(end),
        unit=jnp.ones((), end.value.dtype),
        method=name,
    )
