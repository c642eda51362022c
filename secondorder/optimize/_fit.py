"""Result of a fit: parameters with their uncertainty, and statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.stats
from jax.scipy.special import betainc

from secondorder import meshes, tree
from secondorder.operators._dense import unravel
from secondorder.operators._jacobian import Jacobian, linearize
from secondorder.optimize._projection import frame, rank, scaled_svd
from secondorder.optimize._report import fit_text
from secondorder.optimize._solution import Solution
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


def fit_of(
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


def _rows(at: Jacobian) -> jax.Array:
    leaves = meshes.gathered_leaves(at.dense())
    return jnp.concatenate([columns.reshape(-1, columns.shape[-1]) for columns in leaves])


def _open(rows: jax.Array) -> jax.Array:
    """Mask of the parameters with a part in the null space of the rows, above rounding."""
    _, _, vt, _, kept = scaled_svd(rows)
    v = jnp.where(kept[:, None], vt, 0)
    off = jnp.eye(v.shape[1], dtype=v.dtype) - jnp.matmul(v.T, v, precision="highest")
    return ~(jnp.linalg.norm(off, axis=0) <= jnp.sqrt(jnp.finfo(v.dtype).eps))  # also for NaN


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
