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
from jax.scipy.special import betainc

from secondorder import checks, settings, tree
from secondorder.layers._jaxpr import as_one_program
from secondorder.operators._dense import unravel
from secondorder.operators._jacobian import Jacobian, linearize
from secondorder.optimize._loop import Status
from secondorder.optimize._minimize import Solution, check_bounds, least_squares
from secondorder.optimize._programs import kept
from secondorder.optimize._projection import (
    frame,
    rank,
    scaled_svd,
    separate,
    without_linear,
)
from secondorder.optimize._report import fit_text
from secondorder.tree import Params


class Fit(NamedTuple):
    """Fitted parameters and their uncertainty.

    Attributes:
      params: the parameters.
      standard_errors: shaped like ``params``; infinite where the data do not determine one, zero
        where equal bounds hold it.
      covariance: ``(n, n)``, in the order of ``jax.tree.leaves(params)``.
      solution: the :class:`secondorder.Solution` of the fit.
      determined: shaped like ``params``: false where the data do not determine a parameter, or a
        combination that contains it.
      degrees_of_freedom: observations minus determined directions of the free parameters; infinite
        where ``sigma`` is absolute.
      observations: number of residuals; a complex observation counts as two.

    ``print(fit)`` is a report of the fit.
    """

    params: Params
    standard_errors: Params
    covariance: jax.Array
    solution: Solution
    determined: Params
    degrees_of_freedom: jax.Array
    observations: jax.Array

    def __repr__(self) -> str:
        return fit_text(self)

    @property
    def chi_square(self) -> jax.Array:
        """``χ² = Σ r²`` of the weighted residuals."""
        return 2 * self.solution.value

    @property
    def reduced_chi_square(self) -> jax.Array:
        """``χ² / (m − k)`` of m observations and k determined directions."""
        return self.chi_square / (self.observations - self._directions())

    @property
    def correlation(self) -> jax.Array:
        """``Cᵢⱼ / √(Cᵢᵢ Cⱼⱼ)``, ``(n, n)``; NaN where a parameter is undetermined or held."""
        errors = jnp.sqrt(jnp.diagonal(self.covariance, axis1=-2, axis2=-1))
        return self.covariance / (errors[..., :, None] * errors[..., None, :])

    @property
    def aic(self) -> jax.Array:
        """Akaike's criterion ``m log(χ²/m) + 2k`` (Akaike 1974, for unknown normal errors)."""
        return self._information(2.0)

    @property
    def bic(self) -> jax.Array:
        """Bayes' criterion ``m log(χ²/m) + k log m`` (Schwarz 1978)."""
        return self._information(jnp.log(1.0 * self.observations))

    def report(self, style: str = "text") -> str:
        """The fit in a dozen lines: parameters and errors, correlations, χ², status, steps.

        Args:
          style: ``"text"``, ``"markdown"`` or ``"latex"``.
        """
        return fit_text(self, style)

    def _information(self, weight: Any) -> jax.Array:
        m = self.observations
        return m * jnp.log(self.chi_square / m) + weight * self._directions()

    def _directions(self) -> jax.Array:
        """k, the determined directions of the free parameters."""
        variances = jnp.diagonal(self.covariance, axis1=-2, axis2=-1)
        free = jnp.sum((variances > 0) & jnp.isfinite(variances), axis=-1)
        known = self.observations - self.degrees_of_freedom
        return jnp.where(jnp.isfinite(self.degrees_of_freedom), known, free)

    def confidence_intervals(self, level: float = 0.95) -> tuple[Params, Params]:
        """``params ± t · standard_errors``, lower and upper, by Student's t; of each of a batch."""

        def one(fit: Fit) -> tuple[Params, Params]:
            t = student_quantile(0.5 + 0.5 * level, fit.degrees_of_freedom)
            lower = jax.tree.map(lambda p, s: p - t * s, fit.params, fit.standard_errors)
            return lower, jax.tree.map(lambda p, s: p + t * s, fit.params, fit.standard_errors)

        return self._of_each(one)

    def prediction_errors(self, model: Callable[[Params, Any], jax.Array], x: Any) -> jax.Array:
        """Standard errors of the fitted curve ``model(params, x)``: ``√ diag(J C Jᵀ)``.

        Infinite where the curve depends on an undetermined parameter. For a complex curve, the
        errors of its real part and, times i, of its imaginary part. For a batch of fits (from
        ``jax.vmap``), the errors of each fit at the same x.
        """

        def one(fit: Fit) -> jax.Array:
            at = linearize(lambda p: model(p, x), fit.params)
            rows, finite = _rows(at), jnp.isfinite(fit.covariance)
            covariance = jnp.where(finite, fit.covariance, 0)
            variance = jnp.einsum("ij,jk,ik->i", rows, covariance, rows, precision="highest")
            unknown = jnp.any((rows != 0) & ~jnp.diag(finite)[None], axis=1)
            errors = jnp.where(unknown, jnp.inf, jnp.sqrt(jnp.maximum(variance, 0)))
            return tree.whole(unravel(errors, at.outputs))

        return self._of_each(one)

    def _of_each(self, one: Callable[[Fit], Any]) -> Any:
        """``one(fit)``, mapped over the leading axes of a batch of fits."""
        for _ in range(self.degrees_of_freedom.ndim):
            one = jax.vmap(one)
        return one(self)


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
    max_steps: int = 1000,
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
    if separable is not None:
        return _separated(
            model, optimizer, absolute_sigma, tol, max_steps, separable, x, y, params, sigma, bounds
        )
    fixed = model, optimizer, absolute_sigma, tol, max_steps
    return kept(_fitted, fixed, (x, y, params, sigma, bounds), "curve_fit")


def _fitted(
    model: Callable,
    optimizer: Any,
    absolute_sigma: bool,
    tol: Any,
    max_steps: Any,
    x: Any,
    y: jax.Array,
    params: Params,
    sigma: Any,
    bounds: Any,
) -> Fit:
    """:func:`curve_fit` without ``separable``."""
    residual, held = _residual(model, x, y, sigma), _held(bounds, params)

    def fit() -> Fit:
        solution = least_squares(
            residual, params, optimizer, bounds=bounds, tol=tol, max_steps=max_steps
        )
        at = linearize(residual, solution.params)
        return _fit(solution, at, solution.params, held, absolute_sigma)

    return as_one_program(fit)


def _separated(
    model: Callable,
    optimizer: Any,
    absolute_sigma: bool,
    tol: Any,
    max_steps: Any,
    separable: Any,
    x: Any,
    y: jax.Array,
    params: Params,
    sigma: Any,
    bounds: Any,
) -> Fit:
    """:func:`curve_fit` with ``separable``: only the nonlinear parameters are searched."""
    residual, held = _residual(model, x, y, sigma), _held(bounds, params)
    parts = separate(residual, params, separable)
    if parts is None:  # no leaf is linear
        return _fitted(
            model, optimizer, absolute_sigma, tol, max_steps, x, y, params, sigma, bounds
        )
    bounds = without_linear(bounds, parts, params)

    def fit() -> Fit:
        solution = least_squares(
            parts.projected, parts.searched, optimizer, bounds=bounds, tol=tol, max_steps=max_steps
        )
        like = parts.whole(solution.params)
        solution = _truthful(solution, parts.bent(like))
        return _fit(solution, linearize(residual, like), like, held, absolute_sigma)

    return as_one_program(fit)


def _residual(model: Callable, x: Any, y: jax.Array, sigma: Any) -> Callable[[Params], jax.Array]:
    """``params ↦`` the weighted residuals."""
    whiten = _whitening(sigma, y)

    def residual(p: Params) -> jax.Array:
        with checks.traced("curve_fit", "model"):
            predicted = checks.as_arrays(model(p, x), "curve_fit")
        if not isinstance(predicted, jax.Array):
            raise TypeError(
                f"curve_fit needs a model that returns one array, shaped like y, but it returned "
                f"{checks.described(predicted)}."
            )
        if predicted.shape != y.shape:
            raise ValueError(
                f"curve_fit needs predictions shaped like y, {y.shape}, but the model returned "
                f"shape {jnp.shape(predicted)}."
            )
        return whiten(predicted - y)

    return residual


def _fit(
    solution: Solution, at: Jacobian, like: Params, held: jax.Array, absolute_sigma: bool
) -> Fit:
    """The fit with its covariance and errors, from the Jacobian at the solution."""
    rows = jnp.where(held[None, :], 0, _rows(at))
    u, m = frame(rows)
    inverse = jnp.matmul(m, m.T, precision="highest")
    open_ = _open(jax.lax.stop_gradient(rows)) & ~held
    freedom = (rows.shape[0] - rank(u)).astype(rows.dtype)
    chi = 2 * solution.value.astype(rows.dtype)
    unknown = jnp.where(freedom > 0, chi / jnp.where(freedom > 0, freedom, 1), jnp.inf)
    scale = jnp.ones_like(chi) if absolute_sigma else unknown
    either = lambda flags: flags[:, None] | flags[None, :]
    # An infinite scale times a zero would be NaN.
    finite = scale * jnp.where(either(held), 1, inverse)
    covariance = jnp.where(either(held), 0, jnp.where(either(open_), jnp.inf, finite))
    # Squares of data in extreme units leave the range of the numbers, but the errors do not.
    errors = jax.vmap(tree.norm)(jnp.where(held[:, None], 1, m))
    if not absolute_sigma:
        size = tree.norm(at.outputs).astype(rows.dtype)
        unit = jnp.where(freedom > 0, size / jnp.sqrt(jnp.maximum(freedom, 1)), jnp.inf)
        errors = unit * errors
    errors = jnp.where(held, 0, jnp.where(open_, jnp.inf, errors))
    return Fit(
        params=like,
        standard_errors=tree.cast(unravel(errors, like), like),
        covariance=covariance,
        solution=solution,
        determined=unravel(~open_, like),
        degrees_of_freedom=jnp.full_like(freedom, jnp.inf) if absolute_sigma else freedom,
        observations=jnp.asarray(rows.shape[0], jnp.int32),
    )


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


def _rows(at: Jacobian) -> jax.Array:
    leaves = tree.gathered_leaves(at.dense())
    return jnp.concatenate([columns.reshape(-1, columns.shape[-1]) for columns in leaves])


def _open(rows: jax.Array) -> jax.Array:
    """Mask of the parameters with a part in the null space of the rows, above rounding."""
    _, _, vt, _, kept = scaled_svd(rows)
    v = jnp.where(kept[:, None], vt, 0)
    off = jnp.eye(v.shape[1], dtype=v.dtype) - jnp.matmul(v.T, v, precision="highest")
    return ~(jnp.linalg.norm(off, axis=0) <= jnp.sqrt(jnp.finfo(v.dtype).eps))  # also for NaN


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
            factor.astype(r.dtype), tree.gathered(r).reshape(-1), lower=True
        )
        return lambda r: tree.whole(jax.tree.map(white, tree.parts(r)))
    raise ValueError(
        f"curve_fit got sigma of shape {sigma.shape} for y of shape {y.shape}. Pass standard "
        f"deviations of shape {y.shape}, or a covariance of shape {(y.size, y.size)}."
    )


def student_quantile(probability: float, freedom: jax.Array) -> jax.Array:
    """The quantile of Student's t above one half; the normal one for infinite freedom.

    By bisection of the distribution function, ``1 − ½ I(ν/(ν + t²); ν/2, ½)``.
    """
    nu = jnp.where(jnp.isfinite(freedom), jnp.maximum(freedom, 1e-3), 1.0)

    def above(t: jax.Array) -> jax.Array:
        return 1 - 0.5 * betainc(nu / 2, 0.5 * jnp.ones_like(nu), nu / (nu + t**2))

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        return (
            jnp.where(above(middle) < probability, middle, low),
            jnp.where(above(middle) < probability, high, middle),
        )

    start = (jnp.zeros_like(nu), jnp.full_like(nu, 1e4))
    low, high = jax.lax.fori_loop(0, 80, halve, start)
    normal = jax.scipy.stats.norm.ppf(probability).astype(nu.dtype)
    return jnp.where(jnp.isfinite(freedom), 0.5 * (low + high), normal)
