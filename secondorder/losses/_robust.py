"""Robust losses: sums over residuals with less weight on outliers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from secondorder import settings
from secondorder.losses._base import Loss
from secondorder.losses._elementwise import Sum


@dataclasses.dataclass(frozen=True, eq=False)
class Robust(Sum):
    """``½ c² Σ ρ((rᵢ/c)²)``, SciPy's convention, from ``ρ`` and its first two derivatives.

    The curvature of one term is ``ρ' + 2 s ρ''`` with ``s = (r/c)²``. It falls beyond the scale,
    and may turn negative for large residuals. Where it is less than a tenth of ``ρ'``, the second
    part is dropped, which leaves the weight ``ρ' > 0`` of iteratively reweighted least squares
    (Triggs et al. 2000, section 4.3). In ``root``, ``residual`` and ``curvature`` alike, this
    happens beyond ``|r| =``

    =========  =========================================================
    huber      ``δ``, where the slope becomes constant
    soft_l1    ``3c``, though its true curvature is positive everywhere
    cauchy     ``0.905 c``
    arctan     ``0.734 c``
    =========  =========================================================

    The real and the imaginary part of a complex residual are two residuals.

    Example:
      >>> import secondorder as so
      >>> isinstance(so.soft_l1(1.0), so.losses.Robust)
      True
    """

    least_squares = True
    by_parts = True

    scale: float = 1.0
    rho: Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]] = lambda s: (
        s,
        jnp.ones_like(s),
        jnp.zeros_like(s),
    )

    def _rho(self, z):
        return self.rho((z / self.scale) ** 2)

    def phi(self, z, t):
        return 0.5 * self.scale**2 * self._rho(z)[0]

    def slope(self, z, t):
        return self._rho(z)[1] * z

    def bend(self, z, t):
        _, first, second = self._rho(z)
        full = first + 2 * second * (z / self.scale) ** 2
        # Not `full > 0`: just above zero the step 1/full would be far too long.
        return jnp.where(full > 0.1 * first, full, first)


@settings.checked()
def huber(delta: float = 1.0) -> Loss:
    """``½ r²`` inside ``|r| ≤ δ``, ``δ(|r| − δ/2)`` outside; summed over residuals (Huber 1964).

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.huber(1.0)(jnp.array([0.5, 3.0])))
      2.625
    """

    def rho(s):
        safe = jnp.maximum(s, 1)
        return (
            jnp.where(s <= 1, s, 2 * jnp.sqrt(safe) - 1),
            jnp.where(s <= 1, 1, safe**-0.5),
            jnp.where(s <= 1, 0, -0.5 * safe**-1.5),
        )

    return Robust(scale=delta, rho=rho)


@settings.checked()
def soft_l1(c: float = 1.0) -> Loss:
    """``c²(√(1 + (r/c)²) − 1)``, a smooth absolute value; summed over residuals.

    Its curvature ``(1 + (r/c)²)^(-3/2)`` is used up to ``|r| = 3c``, where it is a tenth of the
    weight ``(1 + (r/c)²)^(-1/2)``, which replaces it beyond: see :class:`Robust`.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.soft_l1(1.0)(jnp.array([0.0])))
      0.0
    """

    def rho(s):
        t = 1 + s
        return 2 * s / (jnp.sqrt(t) + 1), t**-0.5, -0.5 * t**-1.5  # 2(√t − 1), no cancellation

    return Robust(scale=c, rho=rho)


@settings.checked()
def cauchy(c: float = 1.0) -> Loss:
    """``½ c² log(1 + (r/c)²)``; summed over residuals. Not convex beyond ``|r| = c``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(float(so.cauchy(1.0)(jnp.array([1.0]))), 4)
      0.3466
    """
    return Robust(scale=c, rho=lambda s: (jnp.log1p(s), 1 / (1 + s), -1 / (1 + s) ** 2))


@settings.checked()
def arctan(c: float = 1.0) -> Loss:
    """``½ c² arctan((r/c)²)``, bounded above; summed over residuals.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(float(so.arctan(1.0)(jnp.array([1.0]))), 4)
      0.3927
    """

    def rho(s):
        t = 1 + s**2
        return jnp.arctan(s), 1 / t, -2 * s / t**2

    return Robust(scale=c, rho=rho)
