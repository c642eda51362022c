"""Result of a fit: parameters with their uncertainty, and statistics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder import tree
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._jacobian import linearize
from secondorder.optimize._covariance import noise_of, rows_of, spread_of, undetermined, unit_of
from secondorder.optimize._multistart import Minima
from secondorder.optimize._parameters import free_numbers
from secondorder.optimize._plot import plot
from secondorder.optimize._profile import Best, Profile, Slices, grid, intervals
from secondorder.optimize._projection import frame, rank
from secondorder.optimize._quantiles import pair_quantile, student_quantile
from secondorder.optimize._regression import Regression
from secondorder.optimize._report import fit_text
from secondorder.optimize._solution import Solution
from secondorder.tree import Params


@dataclasses.dataclass(frozen=True, repr=False)
class Fit:
    """Fitted parameters and their uncertainty.

    Attributes:
      params: the parameters.
      standard_errors: shaped like ``params``; infinite where the data do not determine one, zero
        for a fixed one, and propagated to first order for a tied one.
      covariance: ``(n, n)``, in the order of ``jax.tree.leaves(params)``; zeros for fixed ones.
      solution: the :class:`secondorder.Solution` of the fit, for its free parameters.
      determined: shaped like ``params``: false where the data do not determine a parameter, or a
        combination that contains it.
      degrees_of_freedom: observations minus determined directions of the free parameters; infinite
        where ``sigma`` is absolute.
      observations: number of residuals; a complex observation counts as two.
      directions: k, the number of determined directions of the free parameters.
      minima: the :class:`secondorder.Minima` of a fit with ``starts``, else ``None``.

    ``print(fit)`` is a report of the fit, and so is a notebook's cell that ends in it. Profiles,
    bands and plots need the model and the data. A fit refers to those of its call (its
    ``problem``), but no longer where it has passed through ``jit``, ``vmap`` or ``jax.tree.map``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> x = jnp.linspace(0.0, 1.0, 9)
      >>> fit = so.curve_fit(lambda p, x: p * x, x, 2 * x + 0.1 * jnp.cos(9 * x), jnp.array(1.0))
      >>> low, high = fit.confidence_intervals(0.95)
      >>> bool(low < 2.0 < high)
      True
    """

    params: Params
    standard_errors: Params
    covariance: jax.Array
    solution: Solution
    determined: Params
    degrees_of_freedom: jax.Array
    observations: jax.Array
    directions: jax.Array
    minima: Minima | None = None
    problem: Regression | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"problem": None}  # functions cannot be saved

    def __repr__(self) -> str:
        return fit_text(self)

    @property
    def chi_square(self) -> jax.Array:
        """``χ² = Σ r²`` of the weighted residuals."""
        return 2 * self.solution.value

    @property
    def reduced_chi_square(self) -> jax.Array:
        """``χ² / (m − k)`` of m observations and k determined directions."""
        return self.chi_square / (self.observations - self.directions)

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
          style: ``"text"``, ``"markdown"``, ``"latex"`` or ``"html"``.
        """
        return fit_text(self, style)

    def _information(self, weight: tree.Scalar) -> jax.Array:
        m = self.observations
        return m * jnp.log(self.chi_square / m) + weight * self.directions

    def confidence_intervals(self, level: float = 0.95, method: str = "t") -> tuple[Params, Params]:
        """Confidence intervals of the parameters: lower and upper ends; of each of a batch.

        Args:
          level: probability, such as 0.95.
          method: ``"t"`` for ``params ± t · standard_errors`` by Student's t; ``"profile"`` for the
            values where χ², minimised over the other parameters, has risen by ``t² s²`` (lmfit's
            ``conf_interval``; Bates and Watts 1988, chapter 6). An end is at a bound that comes
            first, infinite where χ² never rises so far, and NaN where a search fails or finds a
            lower χ² than the fit has, and for tied parameters.
        """
        if method not in ("t", "profile"):
            raise ValueError(f"confidence_intervals got method={method!r}; pass t or profile.")
        check_level("confidence_intervals", level)
        if method == "profile":
            problem = self._problem("confidence_intervals")
            t = student_quantile(0.5 + 0.5 * level, self.degrees_of_freedom)
            return intervals(problem, self._best(problem), t)

        def one(fit: Fit) -> tuple[Params, Params]:
            t = student_quantile(0.5 + 0.5 * level, fit.degrees_of_freedom)
            lower = jax.tree.map(lambda p, s: p - t * s, fit.params, fit.standard_errors)
            return lower, jax.tree.map(lambda p, s: p + t * s, fit.params, fit.standard_errors)

        return self._of_each(one)

    def profile(self, *names: str, level: float = 0.99, points: int = 25) -> Profile:
        """χ² along one parameter, or over a grid of two for contours; see :class:`Profile`.

        Args:
          names: one or two free parameters, named as in the report.
          level: the linearised region of this confidence is covered.
          points: of the grid, along each parameter.
        """
        problem = self._problem("profile")
        check_level("profile", level)
        numbers = free_numbers(problem.task.layout, self.params, names)
        best = self._best(problem)
        center = ravel(problem.task.layout.free(self.params))
        if len(numbers) == 1:
            reach = student_quantile(0.5 + 0.5 * level, best.freedom)
        else:
            reach = jnp.sqrt(2 * pair_quantile(level, best.freedom))
        steps = reach * jnp.linspace(-1, 1, points, dtype=center.dtype)
        errors = jnp.sqrt(jnp.diagonal(best.covariance))
        for name, i in zip(names, numbers, strict=True):
            if not isinstance(errors, Tracer) and not 0 < errors[i] < jnp.inf:
                raise ValueError(
                    f"profile got {name!r}, whose standard error is {errors[i]}: the data or the "
                    "bounds leave no region to cover."
                )
        axes = tuple(center[i] + errors[i] * steps for i in numbers)
        if (ends := Slices(problem, best).ends()) is not None:
            lower, upper = ends
            axes = tuple(
                jnp.clip(a, lower[i], upper[i]) for a, i in zip(axes, numbers, strict=True)
            )
        return grid(problem, best, numbers, axes)

    def _problem(self, user: str) -> Regression:
        if self.degrees_of_freedom.ndim:
            raise ValueError(
                f"{user} needs one fit, but this is a batch. Fit one of them by itself, from "
                "its parameters."
            )
        if self.problem is None:
            raise ValueError(
                f"{user} needs the model and the data, which a fit leaves behind when it passes "
                "through jit, vmap or jax.tree.map. Call curve_fit again, from fit.params."
            )
        return self.problem

    def _best(self, problem: Regression) -> Best:
        """What profiles start from."""
        free = np.nonzero(problem.task.layout.flags(self.params))[0]
        freedom = self.degrees_of_freedom
        noise = self.chi_square / jnp.maximum(self.observations - self.directions, 1)
        scale = jnp.ones_like(noise) if problem.task.absolute_sigma else noise
        if problem.task.options.loss is not None:
            scale = robust_scale(problem, self)
        covariance = self.covariance[np.ix_(free, free)]
        return Best(self.params, self.chi_square, scale, freedom, covariance)

    def prediction_errors(self, model: Callable[[Params, Any], jax.Array], x: Any) -> jax.Array:
        """Standard errors of the fitted curve ``model(params, x)``: ``√ diag(J C Jᵀ)``.

        Infinite where the curve depends on an undetermined parameter. For a complex curve, the
        errors of its real part and, times i, of its imaginary part. For a batch of fits (from
        ``jax.vmap``), the errors of each fit at the same x.
        """

        def one(fit: Fit) -> jax.Array:
            at = linearize(lambda p: model(p, x), fit.params)
            rows, finite = rows_of(at), jnp.isfinite(fit.covariance)
            covariance = jnp.where(finite, fit.covariance, 0)
            variance = jnp.einsum("ij,jk,ik->i", rows, covariance, rows, precision="highest")
            unknown = jnp.any((rows != 0) & ~jnp.diag(finite)[None], axis=1)
            errors = jnp.where(unknown, jnp.inf, jnp.sqrt(jnp.maximum(variance, 0)))
            return tree.whole(unravel(errors, at.outputs))

        return self._of_each(one)

    def confidence_band(self, x: Any = None, level: float = 0.95) -> tuple[jax.Array, jax.Array]:
        """The curve ± t times its standard error at ``x``, by Student's t: lower and upper.

        ``x`` is that of the data by default. The band is that of the curve at each point, not of
        new observations, and not of all points at once.
        """
        problem = self._problem("confidence_band")
        check_level("confidence_band", level)
        x, model = problem.data.x if x is None else x, problem.task.model
        curve, errors = model(self.params, x), self.prediction_errors(model, x)
        t = student_quantile(0.5 + 0.5 * level, self.degrees_of_freedom)
        return (
            jax.tree.map(lambda c, e: c - t * e, curve, errors),
            jax.tree.map(lambda c, e: c + t * e, curve, errors),
        )

    def plot(self, axes: Any = None, level: float = 0.95) -> Any:
        """Draw data, curve and band, and the residuals below; needs matplotlib.

        Args:
          axes: two Matplotlib axes, for the curve and for the residuals; ``None`` makes a figure.
          level: of the confidence band.

        Returns:
          The two axes.
        """
        return plot(self, self._problem("plot"), axes, level)

    def _repr_html_(self) -> str:
        return fit_text(self, "html")

    def _of_each(self, one: Callable[[Fit], Any]) -> Any:
        """``one(fit)``, mapped over the leading axes of a batch of fits."""
        for _ in range(self.degrees_of_freedom.ndim):
            one = jax.vmap(one)
        return one(self)


# The problem is left behind by every transformation: it holds functions.
_FIELDS = [field.name for field in dataclasses.fields(Fit) if field.name != "problem"]
jax.tree_util.register_dataclass(Fit, _FIELDS, [], drop_fields=["problem"])


def robust_scale(problem: Regression, fit: Fit) -> jax.Array:
    """The ``s²`` of a robust profile: the mean of ``ψ²`` over that of ``ψ'`` (Hampel 1986, 7.2)."""
    observed = problem.observed()
    outputs = tree.parts(observed.residual(fit.params))
    count, k = fit.observations, fit.directions
    noise = noise_of(outputs, problem.task.options.loss, observed.kept, count, k)
    return tree.norm(noise.slopes) ** 2 / jnp.maximum(count - k, 1) / noise.bend


def check_level(user: str, level: object) -> None:
    if not (isinstance(level, int | float) and 0 < level < 1):
        raise ValueError(f"{user} got level={level!r}; pass a probability, such as 0.95.")


def fit_of(solution: Solution, problem: Regression, like: Params, held: jax.Array) -> Fit:
    """The fit with its covariance and errors, from the Jacobian at the solution.

    Args:
      like: the free parameters.
      held: mask of those that equal bounds hold.
    """
    task = problem.task
    layout, absolute, loss = task.layout, task.absolute_sigma, task.options.loss
    observed = problem.observed()
    whole = problem.whole
    at = linearize(lambda free: observed.residual(whole(free)), like)
    rows = jnp.where(held[None, :], 0, rows_of(at))
    u, m = frame(rows)
    spread = None if layout.is_plain else spread_of(whole, like, held)
    open_ = undetermined(jax.lax.stop_gradient(rows), spread)
    if spread is None:
        open_ = open_ & ~held
    else:
        m, held = jnp.matmul(spread, m, precision="highest"), jnp.all(spread == 0, axis=1)
    inverse = jnp.matmul(m, m.T, precision="highest")
    count = jnp.asarray(observed.count(rows.shape[0]), jnp.int32)
    directions = rank(u)
    freedom = (count - directions).astype(rows.dtype)
    noise = noise_of(at.outputs, loss, observed.kept, count, directions)
    unit = unit_of(noise, freedom)
    if loss is None:
        chi = 2 * solution.value.astype(rows.dtype)
        unknown = jnp.where(freedom > 0, chi / jnp.where(freedom > 0, freedom, 1), jnp.inf)
    else:
        unknown = unit**2
    scale = jnp.ones_like(unknown) if absolute else unknown
    either = lambda flags: flags[:, None] | flags[None, :]
    # An infinite scale times a zero would be NaN.
    finite = scale * jnp.where(either(held), 1, inverse)
    covariance = jnp.where(either(held), 0, jnp.where(either(open_), jnp.inf, finite))
    # Squares of data in extreme units leave the range of the numbers, but the errors do not.
    errors = jax.vmap(tree.norm)(jnp.where(held[:, None], 1, m))
    errors = errors if absolute else unit * errors
    errors = jnp.where(held, 0, jnp.where(open_, jnp.inf, errors))
    params = whole(like)
    return Fit(
        params=params,
        standard_errors=tree.cast(unravel(errors, params), params),
        covariance=covariance,
        solution=solution,
        determined=unravel(~open_, params),
        degrees_of_freedom=jnp.full_like(freedom, jnp.inf) if absolute else freedom,
        observations=count,
        directions=directions.astype(jnp.int32),
    )
