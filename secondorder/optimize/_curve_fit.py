"""Curve fits by least squares, with the uncertainty of their parameters."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.stats
import optax
from jax.scipy.linalg import solve_triangular

from secondorder import checks, meshes, settings, tree
from secondorder.layers._jaxpr import as_one_program
from secondorder.operators._jacobian import linearize
from secondorder.optimize._bounds import check_bounds
from secondorder.optimize._call import Options
from secondorder.optimize._fit import Fit, fit_of
from secondorder.optimize._least_squares import least_squares
from secondorder.optimize._programs import kept
from secondorder.optimize._projection import separate, without_linear
from secondorder.optimize._records import Status
from secondorder.optimize._solution import Solution
from secondorder.tree import Params


def _check_model(model: Any, params: Params, x: Any) -> None:
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


def _observations(y: Any) -> jax.Array:
    """``y`` as an array."""
    try:
        return jnp.asarray(y)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "curve_fit needs y to be an array of numbers, but it cannot be made one: "
            f"{error}. For rows of several lengths, join them (jnp.concatenate) in y and in the "
            "model's predictions."
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
    bounds: tuple[Any, Any] | None = None,
    separable: Any = None,
) -> Fit:
    """Fit ``y ≈ model(params, x)`` by least squares, with SciPy's meaning of ``sigma``.

    The covariance is ``s² (JᵀJ)⁻¹`` for the weighted Jacobian at the solution, with
    ``s² = ‖r‖²/(m − n)`` unless ``absolute_sigma``. It is computed from singular values, whatever
    the units; the errors of parameters in undetermined directions are ``inf``, and only those. A
    parameter between equal bounds is fixed: its error is zero, and the others' are those of a fit
    without it. A parameter that ends on a bound counts as free, as in SciPy.

    Args:
      model: ``(params, x) ↦`` predictions shaped like ``y``.
      x: the second argument of the model.
      y: observations; a complex one counts as two, its real and its imaginary part.
      params: the start, a pytree.
      optimizer: see :func:`secondorder.least_squares`.
      sigma: standard deviations shaped like ``y``, or an ``(m, m)`` covariance of the observations;
        real, and of each of the two parts where ``y`` is complex.
      absolute_sigma: whether ``sigma`` is in the units of ``y``, rather than up to a factor.
      tol, max_steps, bounds: see :func:`secondorder.least_squares`.
      separable: booleans shaped like ``params`` (or a prefix, or a callable of ``params``), true
        for leaves in which the model is affine. They are solved for at every step, and only the
        others are searched: the same answer in fewer steps and from worse starts. A linear leaf
        needs no good start; its undetermined components keep their start values. ``Fit.solution``
        is the result for the nonlinear parameters: it has ``optax.MaskedNode()`` for linear leaves,
        and its gradient is the full one, which has no part along them. If all leaves are linear, no
        step is taken; if none is, the fit is the ordinary one. A leaf in which the model is not
        affine raises an error, or, if found only at the solution or under ``jit``, gives the status
        ``NOT_AFFINE``.

    Raises:
      ValueError: predictions shaped unlike ``y``, ``sigma`` of another shape; ``separable`` unlike
        ``params`` or not true of the model, or bounds on linear leaves.

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

    Source: Golub and Pereyra (1973) for ``separable``.
    """
    tree.check_real(params)
    _check_model(model, params, x)
    settings.FLAG.of("curve_fit", "absolute_sigma", absolute_sigma)
    check_bounds(bounds, params)
    params, y = jax.tree.map(jnp.asarray, params), _observations(y)
    options, data = Options(optimizer, tol, max_steps), Data(x, y, sigma, absolute_sigma)
    if separable is not None:
        return _separated(model, options, separable, data, params, bounds)
    fixed = model, options, absolute_sigma
    return kept(_fitted, fixed, (x, y, sigma, params, bounds), "curve_fit")


class Data(NamedTuple):
    """The data of a fit, as in :func:`curve_fit`."""

    x: Any
    y: jax.Array
    sigma: jax.Array | None
    absolute_sigma: bool


def _fitted(
    model: Callable,
    options: Options,
    absolute_sigma: bool,
    x: Any,
    y: jax.Array,
    sigma: jax.Array | None,
    params: Params,
    bounds: tuple[Any, Any] | None,
) -> Fit:
    """:func:`curve_fit` without ``separable``."""
    data = Data(x, y, sigma, absolute_sigma)
    residual, held = _residual(model, data), _held(bounds, params)

    def fit() -> Fit:
        solution = _searched(residual, options, params, bounds)
        at = linearize(residual, solution.params)
        return fit_of(solution, at, solution.params, held, absolute_sigma)

    return as_one_program(fit)


def _separated(
    model: Callable,
    options: Options,
    separable: Any,
    data: Data,
    params: Params,
    bounds: tuple[Any, Any] | None,
) -> Fit:
    """:func:`curve_fit` with ``separable``: only the nonlinear parameters are searched."""
    residual, held = _residual(model, data), _held(bounds, params)
    parts = separate(residual, params, separable)
    if parts is None:  # no leaf is linear
        x, y, sigma, absolute_sigma = data
        return _fitted(model, options, absolute_sigma, x, y, sigma, params, bounds)
    bounds = without_linear(bounds, parts, params)

    def fit() -> Fit:
        solution = _searched(parts.projected, options, parts.searched, bounds)
        like = parts.whole(solution.params)
        solution = _truthful(solution, parts.bent(like))
        return fit_of(solution, linearize(residual, like), like, held, data.absolute_sigma)

    return as_one_program(fit)


def _searched(residual: Callable, options: Options, params: Params, bounds: Any) -> Solution:
    kept = {"tol": options.tol, "max_steps": options.max_steps, "bounds": bounds}
    return least_squares(residual, params, options.optimizer, **kept)


def _residual(model: Callable, data: Data) -> Callable[[Params], jax.Array]:
    """``params ↦`` the weighted residuals."""
    x, y, sigma, _ = data
    whiten = _whitening(sigma, y)

    def residual(p: Params) -> jax.Array:
        with checks.traced("curve_fit", "model"):
            predicted = checks.as_arrays(model(p, x), "curve_fit")
            if not isinstance(predicted, jax.Array):
                raise TypeError(
                    "curve_fit needs a model that returns one array, shaped like y, but it "
                    f"returned {checks.described(predicted)}."
                )
            if predicted.shape != y.shape:
                raise ValueError(
                    f"curve_fit needs predictions shaped like y, {y.shape}, but the model returned "
                    f"shape {jnp.shape(predicted)}."
                )
        return whiten(predicted - y)

    return residual


def _held(bounds: Any, params: Params) -> jax.Array:
    """Mask of the parameters between equal bounds, ``(n,)``."""
    if not isinstance(bounds, tuple) or len(bounds) != 2:  # none, or minimize raises
        return jnp.zeros(tree.size(params), bool)
    ends = zip(bounds, ("the lower bound", "the upper bound"), strict=True)
    lower, upper = (tree.spread(bound, params, name) for bound, name in ends)
    leaves = jax.tree.leaves(jax.tree.map(lambda low, high: jnp.ravel(low == high), lower, upper))
    return jnp.concatenate([jnp.zeros(0, bool), *leaves])


def _truthful(solution: Solution, bent: Params) -> Solution:
    """The solution of a separable fit, with a failure status where the model is not affine."""
    is_bent = jnp.any(jnp.stack([jnp.any(flag) for flag in jax.tree.leaves(bent)]))
    status = jnp.where(is_bent, Status.NOT_AFFINE.value, solution.status)
    return dataclasses.replace(solution, status=status, success=solution.success & ~is_bent)


def _whitening(sigma: jax.Array | None, y: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """``r ↦ r/σ``, or ``L⁻¹ r`` for a covariance ``L Lᵀ``."""
    if sigma is None:
        return lambda r: r
    sigma = jnp.asarray(sigma)
    if tree.is_complex(sigma):
        raise ValueError(
            "curve_fit got a complex sigma. Pass real standard deviations or a real covariance: of "
            "complex observations, those of the real part and of the imaginary one alike."
        )
    if sigma.shape in ((), y.shape):
        return lambda r: r / sigma.astype(r.dtype)
    if sigma.shape == (y.size, y.size):
        factor = jnp.linalg.cholesky(sigma)
        white = lambda r: solve_triangular(
            factor.astype(r.dtype), meshes.gathered(r).reshape(-1), lower=True
        )
        return lambda r: tree.whole(jax.tree.map(white, tree.parts(r)))
    raise ValueError(
        f"curve_fit got sigma of shape {sigma.shape} for y of shape {y.shape}. Pass standard "
        f"deviations of shape {y.shape}, or a covariance of shape {(y.size, y.size)}."
    )
