"""Calls of the solves: their options, checks, and defaults."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import reprlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from secondorder import checks, methods, settings, tree
from secondorder.methods._hessian_free import hessian_free
from secondorder.methods._levenberg_marquardt import levenberg_marquardt
from secondorder.methods._newton_cg import newton_cg
from secondorder.methods._trust_region_newton import trust_region_newton
from secondorder.notices import advise
from secondorder.objectives._base import is_objective
from secondorder.optimize._bounds import Bounds, check_bounds, filled
from secondorder.optimize._programs import kept
from secondorder.optimize._progress import Display
from secondorder.optimize._solution import Solution
from secondorder.optimize._watch import Callback, ended, watched
from secondorder.state import settled
from secondorder.tree import Params


class Options(NamedTuple):
    """Options of a solve, with the names and meanings of the arguments of ``minimize``.

    Attributes:
      loss: of ``least_squares``.
    """

    optimizer: optax.GradientTransformation | str | None
    tol: float | None
    max_steps: int | None
    history: int = 0
    callback: Callback | None = None
    has_aux: bool = False
    progress: bool = False
    loss: Callable[[Any], jax.Array] | None = None


KINDS = {
    "tol": settings.POSITIVE.or_none(),
    "max_steps": settings.COUNT.or_none(),
    "history": settings.SIZE_OR_ZERO,
    "callback": settings.FUNCTION.or_none(),
    "has_aux": settings.FLAG,
    "progress": settings.FLAG,
    "loss": settings.FUNCTION.or_none(),
}


def solved(
    solve: Callable,
    user: str,
    fn: Callable,
    options: Options,
    params: Params | Solution,
    args: tuple[Any, ...],
    bounds: Bounds,
) -> Solution:
    """``solve(fn, options, params, args, bounds, watch)`` by a kept program, after all checks.

    Args:
      user: name of the caller, for messages.
    """
    _check_function(user, fn, args)
    for name, kind in KINDS.items():
        kind.of(user, name, getattr(options, name))
    start = params.params if isinstance(params, Solution) else params
    tree.check_real(start)
    ends = filled(bounds, start)
    check_bounds(ends, start)
    arrays = arrays_of(params), _floats(args), arrays_of(ends)
    fixed = options._replace(callback=None, progress=False)
    display = display_of(user, options, start)
    with watched(options.callback, arrays, display) as watch:
        first = functools.partial(check_precision, user, options.tol, start)
        solution = kept(solve, (fn, fixed), (*arrays, watch), user, first)
        solution = ended(solution, watch, display)
    if not options.has_aux:
        return solution
    return dataclasses.replace(solution, aux=fn(solution.params, *args)[1])


def of_params(fn: Callable, options: Options, args: tuple[Any, ...], user: str) -> Callable:
    """``fn`` as a function of the parameters alone, without its auxiliary output."""
    alone = fn if is_objective(fn) else lambda p: fn(p, *args)
    return _first_of(alone, user) if options.has_aux else alone


def check_precision(user: str, tol: tree.Real | None, params: Params, *data: Any) -> None:
    """Warn of a tolerance below float32, and of float64 data that lose their digits in it.

    Args:
      data: observations, and where they were made.
    """
    dtype = tree.dtype(params)
    eps = float(jnp.finfo(dtype).eps)
    if dtype == jnp.float64:
        return
    if isinstance(tol, int | float) and tol < eps:
        advise(
            f"tol {user}",
            f"{user} got tol={tol:g}, but {dtype} resolves {eps:.1g}, so the solve may end in "
            "LIMIT_OF_PRECISION. Switch on float64 (jax_enable_x64), or "
            f"leave tol at its default, {eps**0.5:.1g}.",
            "precision",
        )
    for leaf in jax.tree.leaves(data):
        wide = isinstance(leaf, np.ndarray) and leaf.dtype == np.float64 and leaf.size > 1
        if wide and jnp.result_type(float) != np.float64 and _is_coarse(leaf, eps):
            advise(
                f"data {user}",
                f"{user} got float64 data that vary by {np.ptp(leaf[np.isfinite(leaf)]):.2g} about "
                f"{np.nanmean(leaf):.6g}, but float64 is off, and float32 rounds them by more than "
                "a thousandth of that. Subtract a constant from them, such as their mean, or "
                "switch on float64 (jax_enable_x64).",
                "precision",
            )


def _is_coarse(x: np.ndarray, eps: float) -> bool:
    """Whether rounding is more than a thousandth of the range of some data."""
    x = x[np.isfinite(x)]
    return bool(x.size and 0 < np.ptp(x) < 1e3 * eps * np.max(np.abs(x)))


def display_of(user: str, options: Options, params: Params) -> Display | None:
    """The display of a solve with ``progress=True``."""
    return Display(user, max_steps_of(options, tree.size(params))) if options.progress else None


def max_steps_of(options: Options, size: int) -> int:
    """The limit of updates: the given one, or one that grows with the number of parameters."""
    return max(1000, 10 * size) if options.max_steps is None else options.max_steps


DENSE_LIMIT = 100  # largest number of parameters for a dense Hessian by default


ROWS_LIMIT = 1000  # largest number of parameters for a dense Jacobian by default


def chosen(
    optimizer: optax.GradientTransformation | str | None, size: int, rows: bool = False
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


def arrays_of(x: Any) -> Any:
    """``x`` with every number an array: an input of a program, not a part of it."""
    number = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, int | float) else leaf
    return jax.tree.map(number, x)


def _floats(x: Any) -> Any:
    """``x`` with every float an array; an integer may be a size, which has no tracer."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, x)


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


def start_of(params: Params) -> Params:
    tree.check_real(params)
    return jax.tree.map(settled, params)


def _check_function(user: str, fn: object, args: object) -> None:
    if not callable(fn):
        name = "residual" if user == "least_squares" else "value_fn"
        raise TypeError(f"{user} needs {name} to be a function, but got {reprlib.repr(fn)}.")
    if not isinstance(args, tuple):
        raise TypeError(f"{user} needs args to be a tuple, but got {args!r}. Pass args=(x,).")
    if args and is_objective(fn):
        raise TypeError(
            f"{user} got args beside an objective of the library, which is a function of the "
            "parameters alone. Pass a plain function of (params, *args), or build the objective "
            "inside a jitted function of the data."
        )
