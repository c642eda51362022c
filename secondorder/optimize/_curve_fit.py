"""Curve fits by least squares, with the uncertainty of their parameters."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from secondorder import settings, tree
from secondorder.layers._jaxpr import as_one_program
from secondorder.losses import Robust
from secondorder.optimize._bounds import Bounds, Box, box_of, check_bounds, filled
from secondorder.optimize._call import Options, check_precision, display_of
from secondorder.optimize._fit import Fit, fit_of
from secondorder.optimize._multistart import best_of, stacked
from secondorder.optimize._observed import Data, check_policy, observations
from secondorder.optimize._parameters import Fixed, Tied, layout_of, spread_mask
from secondorder.optimize._programs import kept
from secondorder.optimize._projection import Separated, separate, without_linear
from secondorder.optimize._records import Status
from secondorder.optimize._regression import Regression, Task, check_ties
from secondorder.optimize._solution import Solution
from secondorder.optimize._watch import Callback, Question, Watch, ended, question, watched
from secondorder.stepsize import Mask
from secondorder.tree import Params


def _check_model(model: object, params: Params, x: Any) -> None:
    """Raise an error for a model that cannot be called with ``(params, x)``, such as SciPy's."""
    if not callable(model):
        raise TypeError(f"curve_fit needs model to be a function, but got {model!r}.")
    try:
        signature = inspect.signature(model)
    except (TypeError, ValueError):  # some compiled functions have no signature
        return
    try:
        signature.bind(params, x)
    except TypeError as error:
        raise TypeError(
            f"curve_fit calls model(params, x), but the model has the arguments {signature}. "
            "SciPy's f(x, a, b) is lambda p, x: f(x, *p) here, with params an array or a tuple."
        ) from error


def curve_fit(
    model: Callable[[Params, Any], jax.Array],
    x: Any,
    y: jax.Array,
    params: Params,
    optimizer: optax.GradientTransformation | str | None = None,
    *,
    sigma: jax.Array | None = None,
    absolute_sigma: bool = False,
    tol: float | None = None,
    max_steps: int | None = None,
    bounds: Bounds = None,
    fixed: Fixed = None,
    tied: Tied = None,
    starts: Params | dict[str, Any] | None = None,
    loss: Robust | None = None,
    nan_policy: str = "propagate",
    callback: Callback | None = None,
    progress: bool = False,
    separable: Mask = None,
) -> Fit:
    """Fit ``y ≈ model(params, x)`` by least squares, with SciPy's meaning of ``sigma``.

    The covariance is ``s² (JᵀJ)⁻¹`` for the weighted Jacobian at the solution, with
    ``s² = ‖r‖²/(m − n)`` unless ``absolute_sigma``. It is computed from singular values, whatever
    the units; the errors of parameters in undetermined directions are ``inf``, and only those. A
    fixed parameter, or one between equal bounds, has the error zero, and the others' are those of a
    fit without it. The error of a tied one is propagated to first order. A parameter that ends on a
    bound counts as free, as in SciPy.

    With ``loss`` the covariance is Huber's, ``k² [Σψ²/(m − n)] / ψ̄'² (JᵀJ)⁻¹``, with the slope ψ of
    the loss at each residual, the mean ``ψ̄'`` of its derivative, and ``k = 1 + (n/m) var(ψ')/ψ̄'²``:
    for errors of one distribution, whatever its tails.

    Args:
      model: ``(params, x) ↦`` predictions shaped like ``y``.
      x: the second argument of the model, any tree.
      y: observations; a complex one counts as two, its real and its imaginary part. A tuple or a
        dictionary of arrays is several data sets: predictions are a tree like it.
      params: the start, a pytree. A name below is the path of a leaf, such as ``"rate"``,
        ``"peaks.0.width"``, or of an entry, ``"c[2]"`` (for one array, ``2``).
      optimizer: see :func:`secondorder.least_squares`.
      sigma: standard deviations shaped like ``y`` (or a number for each of its arrays), or an
        ``(m, m)`` covariance of the observations; real, and of each of the two parts where ``y`` is
        complex.
      absolute_sigma: whether ``sigma`` is in the units of ``y``, rather than up to a factor.
      tol, max_steps: see :func:`secondorder.least_squares`.
      bounds: ``(lower, upper)``, numbers or trees like ``params``, or dictionaries of some of them
        by name; or one dictionary ``{name: (lower, upper)}``. ``None`` and missing names are no
        bound.
      fixed: parameters that keep a value: ``{"k": 0.5}`` by name, names alone for the value of the
        start, or a tree of booleans like ``params``. The values may be traced, the choice may not.
      tied: ``{name: expression}``: functions of the parameters, evaluated in this order, such as
        ``{"b": lambda p: 2 * p["a"]}``; the name of another parameter shares its value. They cannot
        be bounded.
      starts: further starts, searched side by side: a tree like ``params`` with one more leading
        axis, or a dictionary of some parameters by name; see ``Fit.minima``.
      loss: a robust loss of the weighted residuals: ``huber``, ``soft_l1``, ``cauchy`` or
        ``arctan`` of secondorder. ``chi_square`` is then twice its value.
      nan_policy: for numbers in ``x``, ``y`` or ``sigma`` that are not finite: ``"propagate"`` ends
        with the status ``NONFINITE``, ``"raise"`` raises an error (not under ``jit``), ``"omit"``
        leaves those points out.
      callback: see :func:`secondorder.minimize`; it gets all parameters.
      progress: see :func:`secondorder.minimize`; with ``starts``, of the start that reported last.
      separable: booleans shaped like ``params`` (or a prefix, or a callable of ``params``), true
        for leaves in which the model is affine. They are solved for at every step, and only the
        others are searched: the same answer in fewer steps and from worse starts. A linear leaf
        needs no good start; its undetermined components keep their start values. ``Fit.solution``
        is the result for the nonlinear parameters: it has ``optax.MaskedNode()`` for linear leaves,
        and its gradient is the full one, which has no part along them. If all leaves are linear, no
        step is taken; if none is, the fit is the ordinary one. A leaf in which the model is not
        affine raises an error, or, if found only at the solution or under ``jit``, gives the status
        ``NOT_AFFINE``.

    Returns:
      A :class:`secondorder.Fit`. ``Fit.solution`` is that of the free parameters.

    Raises:
      TypeError: a model that is not ``model(params, x)``; a ``loss`` that is not robust.
      ValueError: predictions shaped unlike ``y``, ``sigma`` of another shape; unknown names, ties
        that read later ones; ``separable`` unlike ``params`` or not true of the model, or bounds on
        linear leaves.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x = jnp.linspace(0.0, 2.0, 20)
      >>> y = 3.0 * jnp.exp(-1.5 * x) + 0.01 * jnp.cos(40 * x)
      >>> fit = so.curve_fit(lambda p, x: p["a"] * jnp.exp(-p["b"] * x), x, y, {"a": 1.0, "b": 1.0})
      >>> bool(fit.solution.success), round(float(fit.params["a"]), 1)
      (True, 3.0)

      The amplitude is linear, so only the rate is searched for:

      >>> curve = lambda p, x: p["a"] * jnp.exp(-p["b"] * x)
      >>> start = {"a": 1.0, "b": 1.0}
      >>> same = so.curve_fit(curve, x, y, start, separable={"a": True, "b": False})
      >>> round(float(same.params["a"]), 1), len(jax.tree.leaves(same.solution.params))
      (3.0, 1)

      A shared rate, and an offset that is fixed:

      >>> two = lambda p, x: p["a"] * jnp.exp(-p["b"] * x) + p["c"]
      >>> fit = so.curve_fit(two, x, y, {"a": 1.0, "b": 1.0, "c": 0.0}, fixed="c")
      >>> fit.standard_errors["c"].item(), fit.degrees_of_freedom.item()
      (0.0, 18.0)

    Source: Golub and Pereyra (1973) for ``separable``; Huber (1981), section 7.6, for the
    covariance of a robust fit.
    """
    tree.check_real(params)
    _check_model(model, params, x)
    settings.FLAG.of("curve_fit", "absolute_sigma", absolute_sigma)
    settings.FUNCTION.or_none().of("curve_fit", "callback", callback)
    settings.FLAG.of("curve_fit", "progress", progress)
    _check_loss(loss, absolute_sigma, separable)
    first = functools.partial(check_precision, "curve_fit", tol, params, x, y)
    params, data = jax.tree.map(jnp.asarray, params), Data(x, observations(y), sigma)
    check_policy(nan_policy, data)
    ends = filled(bounds, params)
    check_bounds(ends, params)
    layout, base = layout_of(params, fixed, tied)
    check_ties(layout, ends)
    options = Options(optimizer, tol, max_steps, loss=loss)
    task = Task(model, options, layout, absolute_sigma, nan_policy == "omit")
    problem = Regression(task, data, base, ends)
    many = None if starts is None else stacked(starts, base)
    arrays = (*problem[1:], many)
    display = display_of("curve_fit", options._replace(progress=progress), params)
    with watched(callback, arrays, display) as watch:
        if separable is not None:
            first()
            fit = _separated(problem, _free_mask(separable, params, problem), many, watch)
        else:
            fit = kept(_fitted, (model, task), (*arrays, watch), "curve_fit", first)
        fit = ended(fit, watch, display)
    return dataclasses.replace(fit, problem=problem)


def _check_loss(loss: object, absolute_sigma: bool, separable: Mask) -> None:
    """Raise an error for a loss whose errors are not known here."""
    if loss is None:
        return
    if not isinstance(loss, Robust):
        raise TypeError(
            f"curve_fit got loss={loss!r}; pass huber, soft_l1, cauchy or arctan of secondorder, "
            "such as so.huber(1.0), or None. least_squares takes any function of the residuals."
        )
    if absolute_sigma or separable is not None:
        name = "absolute_sigma=True" if absolute_sigma else "separable"
        raise ValueError(
            f"curve_fit got loss beside {name}. The errors of a robust fit come from the scatter "
            "of its residuals, and separable solves for linear parameters by least squares: leave "
            "one of the two out."
        )


def _free_mask(separable: Mask, params: Params, problem: Regression) -> Params:
    """``separable`` for the free parameters alone."""
    mask = separable(params) if callable(separable) else separable
    mask, layout = spread_mask("separable", mask, params), problem.task.layout
    leaves = jax.tree.structure(params).flatten_up_to(layout.free(params))
    flags = zip(leaves, jax.tree.leaves(mask), strict=True)
    parts = [jax.tree.map(lambda _, flag=flag: bool(flag), leaf) for leaf, flag in flags]
    return jax.tree.unflatten(jax.tree.structure(params), parts)


def _fitted(
    model: Callable,
    task: Task,
    data: Data,
    base: Params,
    bounds: Box | None,
    starts: Params | None,
    watch: Watch,
) -> Fit:
    """:func:`curve_fit` without ``separable``; ``model`` is that of the task."""
    problem = Regression(task, data, base, bounds)
    residual = _residual(problem)
    ends, free = problem.free_bounds(), task.layout.free(base)

    def fit() -> Fit:
        search = lambda start: problem.search(residual, start, ends, _seen(watch, problem.whole))
        return _finished(problem, search, residual, lambda free: free, free, ends, starts)

    return as_one_program(fit)


def _separated(problem: Regression, separable: Params, starts: Params | None, watch: Watch) -> Fit:
    """:func:`curve_fit` with ``separable``: only the nonlinear parameters are searched."""
    residual, free = _residual(problem), problem.task.layout.free(problem.base)
    parts = separate(residual, free, separable)
    if parts is None:  # no leaf is linear
        return _fitted(problem.task.model, *problem, starts, watch)
    ends = problem.free_bounds()
    searched = None if ends is None else without_linear(ends, parts, free)

    def fit() -> Fit:
        view = lambda s: problem.whole(parts.whole(s))

        def search(start: Params) -> Solution:
            start = parts.searched_of(start)
            return problem.search(parts.projected, start, searched, _seen(watch, view))

        return _finished(problem, search, parts.projected, parts.whole, free, ends, starts, parts)

    return as_one_program(fit)


def _finished(
    problem: Regression,
    search: Callable[[Params], Solution],
    residual: Callable,
    to_free: Callable[[Params], Params],
    start: Params,
    ends: Box | None,
    starts: Params | None,
    parts: Separated | None = None,
) -> Fit:
    """The fit of the best solution.

    Args:
      search: free parameters ↦ solution.
      residual: of the parameters that are searched.
      to_free: the free parameters of those.
    """
    minima = None
    if starts is None:
        solution = search(start)
    else:
        whole = lambda searched: problem.whole(to_free(searched))
        free = jax.vmap(problem.task.layout.free)(starts)
        solution, minima = best_of(search, residual, whole, free)
    like = to_free(solution.params)
    if parts is not None:
        solution = _truthful(solution, parts.bent(like))
    fit = fit_of(solution, problem, like, _held(ends, like))
    return dataclasses.replace(fit, minima=minima)


def _seen(watch: Watch, whole: Callable[[Params], Params]) -> Question | None:
    """The question of the callback, which gets all parameters."""
    asks = question(watch)
    if asks is None:
        return None
    return lambda active, it: asks(active, it._replace(params=whole(it.params)))


def _residual(problem: Regression) -> Callable[[Params], jax.Array]:
    """The residuals as a function of the free parameters."""
    residual = problem.observed().residual
    return lambda free: residual(problem.whole(free))


def _held(bounds: Box | None, params: Params) -> jax.Array:
    """Mask of the parameters between equal bounds, ``(n,)``."""
    if bounds is None:
        return jnp.zeros(tree.size(params), bool)
    equal = lambda low, high: jnp.ravel(low == high)
    leaves = jax.tree.leaves(jax.tree.map(equal, *box_of(bounds, params)))
    return jnp.concatenate([jnp.zeros(0, bool), *leaves])


def _truthful(solution: Solution, bent: Params) -> Solution:
    """The solution of a separable fit, with a failure status where the model is not affine."""
    is_bent = jnp.any(jnp.stack([jnp.any(flag) for flag in jax.tree.leaves(bent)]))
    status = jnp.where(is_bent, Status.NOT_AFFINE.value, solution.status)
    return dataclasses.replace(solution, status=status, success=solution.success & ~is_bent)
