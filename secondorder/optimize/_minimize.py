"""``minimize`` and ``least_squares``: solves to convergence with any Optax optimizer."""

from __future__ import annotations

import collections
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from secondorder import checks, losses, methods, settings, tree
from secondorder.layers._jaxpr import as_one_program
from secondorder.methods._hessian_free import hessian_free
from secondorder.methods._levenberg_marquardt import levenberg_marquardt
from secondorder.methods._newton_cg import newton_cg
from secondorder.methods._trust_region_newton import trust_region_newton
from secondorder.objectives._base import is_objective
from secondorder.objectives._objective import Objective
from secondorder.optimize._implicit import attach, opened
from secondorder.optimize._loop import (
    Evaluations,
    History,
    Loop,
    Problem,
    Status,
    active,
    begin,
    ended,
    free_params,
    resumed,
    run,
)
from secondorder.optimize._programs import kept
from secondorder.optimize._report import solution_text
from secondorder.state import settled
from secondorder.tree import Params

DENSE_LIMIT = 100  # largest number of parameters for a dense Hessian by default
ROWS_LIMIT = 1000  # largest number of parameters for a dense Jacobian by default


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Solution:
    """Result of a solve; a pytree.

    Attributes:
      params: the parameters.
      value: the objective there.
      grad_norm: ``‖∇f‖₂`` there, over the parameters not held at a bound.
      steps: number of updates, rejected ones included.
      evaluations: an :class:`Evaluations`.
      status: a :class:`Status`, as an integer array.
      success: whether the status is ``CONVERGED``.
      projected: whether the start lay outside the bounds and was moved onto them.
      history: a :class:`History`, or ``None`` with ``history=0``.
      loop: the state of the loop; pass the solution as ``params`` to continue from it.
      unit: divisor of the residuals inside the loop: 1, unless squares of ``least_squares``'s
        residuals would overflow or underflow.
      method: name of the default that was chosen, or ``"given"``.
      aux: auxiliary output of the function at ``params``, with ``has_aux=True``.
    """

    params: Params
    value: jax.Array
    grad_norm: jax.Array
    steps: jax.Array
    evaluations: Evaluations
    status: jax.Array
    success: jax.Array
    projected: jax.Array
    history: History | None
    loop: Loop
    unit: jax.Array
    method: str = dataclasses.field(metadata={"static": True})
    aux: Any = None

    @property
    def state(self) -> Any:
        """The optimizer's last state."""
        return self.loop.state

    @property
    def message(self) -> str:
        """The status in a sentence (not under ``jit``); of a batch, how often each."""
        found = collections.Counter(np.ravel(self.status).tolist()).most_common()
        if len(found) == 1:
            return Status(found[0][0]).sentence
        return " ".join(f"{count} times: {Status(status).sentence}" for status, count in found)

    def __repr__(self) -> str:
        return solution_text(self)


def minimize(
    value_fn: Callable[[Params], jax.Array],
    params: Params | Solution,
    optimizer: optax.GradientTransformation | str | None = None,
    *,
    args: tuple[Any, ...] = (),
    tol: float | None = None,
    max_steps: int = 1000,
    bounds: tuple[Any, Any] | None = None,
    history: int = 0,
    callback: Callable[[Any, Any, Any], None] | None = None,
    has_aux: bool = False,
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
        problem, to continue it bit for bit.
      optimizer: any Optax transformation, or the name of a method with its defaults, such as
        ``"bfgs"``; ``None`` takes :func:`secondorder.trust_region_newton`
        up to 100 parameters and :func:`secondorder.newton_cg` beyond.
      args: further arguments of ``value_fn``, trees of arrays; the solution is differentiable with
        respect to them.
      tol: tolerance of the test; ``None`` takes ``√ε`` (1.5e-8 in float64, 3.5e-4 in float32).
      max_steps: largest number of updates in all, rejected ones included.
      bounds: ``(lower, upper)``, numbers or trees like ``params``; every step is feasible, and a
        start outside is moved onto the box (``Solution.projected``).
      history: number of steps to record (:class:`History`).
      callback: called on the host with ``(steps, value, grad_norm)`` after every update.
      has_aux: whether ``value_fn`` returns ``(value, aux)``; ``Solution.aux`` is then ``aux`` at
        the solution, from one more evaluation.

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
    counts = {"max_steps": max_steps, "history": history}
    _check_arguments("minimize", value_fn, args, tol=tol, callback=callback, **counts)
    settings.FLAG.of("minimize", "has_aux", has_aux)
    start = params.params if isinstance(params, Solution) else params
    tree.check_real(start)
    check_bounds(bounds, start)
    fixed = value_fn, optimizer, tol, max_steps, history, callback, has_aux
    solution = kept(
        _minimized, fixed, (_arrays(params), _floats(args), _arrays(bounds)), "minimize"
    )
    return _with_aux(solution, value_fn, args) if has_aux else solution


def _minimized(
    value_fn: Callable,
    optimizer: Any,
    tol: Any,
    max_steps: Any,
    history: int,
    callback: Any,
    has_aux: bool,
    params: Params | Solution,
    args: tuple[Any, ...] = (),
    bounds: Any = None,
) -> Solution:
    """:func:`minimize` without checks that need values."""
    objective = with_args(value_fn, args)
    if has_aux:
        objective = _first_of(objective, "minimize")
    earlier = params if isinstance(params, Solution) else None
    params = _start(earlier.params if earlier else params)
    box = box_of(bounds, params)
    inside = params if box is None else jax.tree.map(jnp.clip, params, *box)
    name, chosen = _chosen(optimizer, tree.size(params))

    build, theta = opened(objective, jax.lax.stop_gradient(inside))
    fn = build(jax.lax.stop_gradient(theta))
    jax.eval_shape(checks.number(fn, "minimize"), inside)
    problem = Problem(
        fn=fn,
        optimizer=optax.with_extra_args_support(chosen),
        tol=float(jnp.finfo(tree.dtype(params)).eps) ** 0.5 if tol is None else tol,
        max_steps=max_steps,
        box=jax.lax.stop_gradient(box),  # the solution's derivative is implicit
        callback=callback,
    )

    def solve() -> Solution:
        if earlier is None:
            loop = begin(problem, jax.lax.stop_gradient(inside), history)
        else:
            loop = resumed(problem, earlier.loop)
        return _ended(run(problem, loop), build, theta, params, inside, box, name)

    return as_one_program(solve)


def with_args(fn: Callable, args: tuple[Any, ...]) -> Callable:
    """``p ↦ fn(p, *args)``; an objective of the library has no further arguments."""
    return fn if is_objective(fn) else lambda p: fn(p, *args)


def _with_aux(solution: Solution, fn: Callable, args: tuple[Any, ...]) -> Solution:
    return dataclasses.replace(solution, aux=fn(solution.params, *args)[1])


def _arrays(x: Any) -> Any:
    """``x`` with every number an array: an input of a program, not a part of it."""
    number = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, int | float) else leaf
    return jax.tree.map(number, x)


def _floats(x: Any) -> Any:
    """``x`` with every float an array; an integer may be a size, which has no tracer."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, x)


def _ended(
    end: Loop,
    build: Callable,
    theta: Any,
    start: Params,
    inside: Params,
    box: tuple[Params, Params] | None,
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


def least_squares(
    residual: Callable[[Params], Any],
    params: Params | Solution,
    optimizer: optax.GradientTransformation | str | None = None,
    *,
    args: tuple[Any, ...] = (),
    tol: float | None = None,
    max_steps: int = 1000,
    loss: Callable[[Any], jax.Array] | None = None,
    bounds: tuple[Any, Any] | None = None,
    history: int = 0,
    callback: Callable[[Any, Any, Any], None] | None = None,
    has_aux: bool = False,
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
      max_steps: at most this many updates in all, rejected ones included.
      loss: a robust loss instead of ``½ Σ r²``, such as ``huber(1.0)``, or any scalar function of
        the residuals.
      bounds, history, callback: see :func:`minimize`; a callback gets value and gradient in squares
        of ``Solution.unit``.
      has_aux: whether ``residual`` returns ``(residuals, aux)``; see :func:`minimize`.

    Raises:
      ValueError: a residual that returns one number; see also :func:`minimize`.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> rosenbrock = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
      >>> bool(so.least_squares(rosenbrock, jnp.array([-1.2, 1.0])).success)
      True
    """
    counts = {"max_steps": max_steps, "history": history}
    _check_arguments("least_squares", residual, args, tol=tol, callback=callback, **counts)
    settings.FLAG.of("least_squares", "has_aux", has_aux)
    settings.FUNCTION.or_none().of("least_squares", "loss", loss)
    start = params.params if isinstance(params, Solution) else params
    tree.check_real(start)
    check_bounds(bounds, start)
    fixed = residual, optimizer, tol, max_steps, loss, history, callback, has_aux
    arrays = _arrays(params), _floats(args), _arrays(bounds)
    solution = kept(_least_squares, fixed, arrays, "least_squares")
    return _with_aux(solution, residual, args) if has_aux else solution


def _least_squares(
    residual: Callable,
    optimizer: Any,
    tol: Any,
    max_steps: Any,
    loss: Any,
    history: int,
    callback: Any,
    has_aux: bool,
    params: Params | Solution,
    args: tuple[Any, ...] = (),
    bounds: Any = None,
) -> Solution:
    """:func:`least_squares` without checks that need values."""
    fn = with_args(residual, args)
    if has_aux:
        fn = _first_of(fn, "least_squares")

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
    name, chosen = _chosen(optimizer, tree.size(where), rows=True)

    def solve() -> Solution:
        unit = params.unit if isinstance(params, Solution) else jnp.ones(())
        if loss is None and not isinstance(params, Solution):
            unit = jax.lax.stop_gradient(_unit(fn, _start(params)))
        scaled = lambda r: jax.tree.map(lambda x: x / unit.astype(x.dtype), r)
        whole = vector if loss is not None else lambda p: scaled(vector(p))
        objective = Objective(losses.half_sum_of_squares() if loss is None else loss, whole)
        rest = tol, max_steps, history, callback, False, params, (), bounds
        solution = _minimized(objective, chosen, *rest)
        return _in_units(dataclasses.replace(solution, method=name), unit)

    return as_one_program(solve)


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


def _chosen(
    optimizer: Any, size: int, rows: bool = False
) -> tuple[str, optax.GradientTransformation]:
    """Name and optimizer; the default depends on the kind and size of the problem."""
    if isinstance(optimizer, str):
        return optimizer, by_name(optimizer)
    if optimizer is not None:
        checks.optimizer(optimizer)
        return "given", optimizer
    if rows:
        default = levenberg_marquardt if size <= ROWS_LIMIT else hessian_free
    else:
        default = trust_region_newton if size <= DENSE_LIMIT else newton_cg
    return default.__name__, default()


def by_name(name: str) -> optax.GradientTransformation:
    """The method of a name, with its defaults."""
    factories = {known: getattr(methods, known) for known in methods.__all__}
    alone = [known for known, make in factories.items() if not _required(make)]
    if name in alone:
        return factories[name]()
    cure = f"Pass one of {', '.join(alone)}, or an Optax transformation."
    if name in factories:
        cure = f"That method needs {', '.join(_required(factories[name]))}: pass so.{name}(...)."
    raise ValueError(f"There is no optimizer of the name {name!r} with its defaults. {cure}")


def _required(factory: Callable) -> list[str]:
    parameters = inspect.signature(factory).parameters.values()
    return [p.name for p in parameters if p.default is inspect.Parameter.empty]


def _first_of(fn: Callable, user: str) -> Callable:
    """``fn`` without its auxiliary output."""
    if is_objective(fn):
        raise TypeError(
            f"{user} got has_aux=True with an objective of the library, whose value is one number. "
            "Pass a plain function that returns (value, aux)."
        )

    def first(params: Params) -> Any:
        outputs = fn(params)
        if not isinstance(outputs, (tuple, list)) or len(outputs) != 2:
            raise ValueError(
                f"{user} got has_aux=True, so the function must return (value, aux), but it "
                f"returned {checks.described(outputs)}."
            )
        return outputs[0]

    return first


def _start(params: Params) -> Params:
    tree.check_real(params)
    return jax.tree.map(settled, params)


def box_of(bounds: Any, params: Params) -> tuple[Params, Params] | None:
    """Bounds as two trees like ``params``."""
    if bounds is None:
        return None
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        raise ValueError(f"bounds must be a pair (lower, upper), but got {bounds!r}.")

    lower = tree.spread(bounds[0], params, "the lower bound")
    upper = tree.spread(bounds[1], params, "the upper bound")
    return lower, upper


def check_bounds(bounds: Any, params: Params) -> None:
    """Raise an error for bounds that cross; by NumPy, which compiles nothing.

    Bounds computed under ``jit`` have no values yet; those that do not fit the parameters get their
    sentence from :func:`box_of`.
    """
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        return
    leaves = jax.tree_util.tree_leaves_with_path(params)
    lower, upper = (_ends(bound, len(leaves)) for bound in bounds)
    if any(isinstance(x, Tracer) for x in (*lower, *upper)):
        return
    for (path, x), low, high in zip(leaves, lower, upper, strict=False):
        low, high = (np.asarray(end).astype(tree.leaf_dtype(x)) for end in (low, high))
        if np.any(low > high):
            raise ValueError(
                f"bounds cross at params{jax.tree_util.keystr(path)}: a lower bound exceeds its "
                "upper one. Swap them, or make them equal to fix the parameter."
            )


def _ends(bound: Any, count: int) -> list[Any]:
    """The bound of each leaf; one number for all leaves."""
    single = jax.tree.structure(bound) == jax.tree.structure(0) and np.ndim(bound) == 0
    return [bound] * count if single else jax.tree.leaves(bound)


def _check_arguments(user: str, fn: Any, args: Any, **given: Any) -> None:
    if not callable(fn):
        name = "residual" if user == "least_squares" else "value_fn"
        raise TypeError(f"{user} needs {name} to be a function, but got {fn!r}.")
    if not isinstance(args, tuple):
        raise TypeError(f"{user} needs args to be a tuple, but got {args!r}. Pass args=(x,).")
    if args and is_objective(fn):
        raise TypeError(
            f"{user} got args beside an objective of the library, which is a function of the "
            "parameters alone. Pass a plain function of (params, *args), or build the objective "
            "inside a jitted function of the data."
        )
    kinds = {
        "tol": settings.POSITIVE.or_none(),
        "max_steps": settings.COUNT,
        "history": settings.SIZE_OR_ZERO,
        "callback": settings.FUNCTION.or_none(),
    }
    for name, value in given.items():
        kinds[name].of(user, name, value)
