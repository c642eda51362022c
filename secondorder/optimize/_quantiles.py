"""Quantiles and probabilities of intervals: Student's t, and F of two parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.stats
from jax.scipy.special import betainc


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


def student_probability(t: jax.Array, freedom: jax.Array) -> jax.Array:
    """The probability of ``|T| ≤ t`` for Student's T; of the normal for infinite freedom."""
    nu = jnp.where(jnp.isfinite(freedom), jnp.maximum(freedom, 1e-3), 1.0)
    inside = 1 - betainc(nu / 2, 0.5 * jnp.ones_like(nu), nu / (nu + t**2))
    normal = jax.scipy.special.erf(t / jnp.sqrt(2.0)).astype(nu.dtype)
    return jnp.where(jnp.isfinite(freedom), inside, normal)


def pair_quantile(level: float, freedom: jax.Array) -> jax.Array:
    """The F quantile of two parameters: ``½ ν ((1 − p)^(−2/ν) − 1)``, ``−log(1 − p)`` for ν = ∞."""
    nu = jnp.where(jnp.isfinite(freedom), jnp.maximum(freedom, 1e-3), 1.0)
    found = 0.5 * nu * jnp.expm1(-2 / nu * jnp.log1p(-level))
    return jnp.where(jnp.isfinite(freedom), found, -jnp.log1p(-level))


def pair_probability(f: jax.Array, freedom: jax.Array) -> jax.Array:
    """The probability that F of two parameters is at most ``f``."""
    nu = jnp.where(jnp.isfinite(freedom), jnp.maximum(freedom, 1e-3), 1.0)
    inside = -jnp.expm1(-0.5 * nu * jnp.log1p(2 * f / nu))
    return jnp.where(jnp.isfinite(freedom), inside, -jnp.expm1(-f))
