"""Secular equation of trust regions and of cubic regularisation.

In the eigenbasis of ``B`` (eigenvalues ``w``, gradient ``c``) the minimum of

    c·z + ½ Σ wᵢ zᵢ²   subject to ‖z‖ ≤ Δ,        or        c·z + ½ Σ wᵢ zᵢ² + σ/3 ‖z‖³

is ``zᵢ = −cᵢ/(wᵢ + λ)`` with ``λ ≥ max(0, −w₀)`` and ``‖z(λ)‖ = reach(λ)``, where ``reach`` is Δ or
``λ/σ`` (Moré and Sorensen 1983; Cartis, Gould and Toint 2011). Where the gradient has no part in
the lowest eigenspace this may have no solution: the *hard case*, completed along that eigenspace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MAX_ITERATIONS = 100


class Reach(NamedTuple):
    """Largest length of a step as a function of the multiplier λ.

    Attributes:
      inverse: ``λ ↦ 1/reach(λ)``; 0 where unbounded.
      slope: its derivative.
      upper: ``(w₀, ‖c‖) ↦`` a λ at which the step is at most as long as the reach.
    """

    inverse: Callable[[jax.Array], jax.Array]
    slope: Callable[[jax.Array], jax.Array]
    upper: Callable[[jax.Array, jax.Array], jax.Array]


def radius(delta: jax.Array) -> Reach:
    """``reach = Δ``; infinity leaves the model unconstrained."""
    return Reach(
        inverse=lambda lam: jnp.ones_like(lam) / delta,
        slope=jnp.zeros_like,
        upper=lambda lowest, size: jnp.maximum(size / delta - lowest, 0),
    )


def cubic(sigma: jax.Array) -> Reach:
    """``reach = λ/σ``."""
    tiny = jnp.finfo(sigma.dtype).tiny
    return Reach(
        inverse=lambda lam: sigma / jnp.maximum(lam, tiny),
        slope=lambda lam: -sigma / jnp.maximum(lam, tiny) ** 2,
        upper=lambda lowest, size: 0.5 * (jnp.sqrt(lowest**2 + 4 * sigma * size) - lowest),
    )


class Minimiser(NamedTuple):
    """Minimiser of the regularised model.

    Attributes:
      z: the step in the eigenbasis.
      multiplier: λ.
      hard: whether the hard case was completed along the lowest eigenvector.
      interior: whether λ = 0.
    """

    z: jax.Array
    multiplier: jax.Array
    hard: jax.Array
    interior: jax.Array


def within_radius(
    w: jax.Array, c: jax.Array, delta: jax.Array, semidefinite: bool = False, own: Any = 1.0
) -> Minimiser:
    """The minimiser over ``‖z‖ ≤ Δ``; ``w`` ascending eigenvalues, ``c`` the gradient, ``(n,)``.

    For an indefinite model, Δ = ∞ means the length of the step with each curvature in magnitude:
    the model's own unit. ``semidefinite`` declares that no eigenvalue is negative and that ``c`` is
    zero where one vanishes; the result is then the shortest minimiser. ``own`` is the length of a
    step off a saddle with zero gradient, where the model has no unit.
    """
    w, c, unit, peak = _scaled(w, c, own)
    unbounded = jnp.inf if semidefinite else _own_radius(w, c)
    delta = jnp.where(jnp.isfinite(delta), delta / unit, unbounded)
    found = minimise(w, c, radius(delta), semidefinite)
    return found._replace(z=unit * found.z, multiplier=peak * found.multiplier)


def cubically_regularised(
    w: jax.Array, c: jax.Array, sigma: jax.Array, own: Any = 1.0
) -> Minimiser:
    """The minimiser with ``σ/3 ‖z‖³``; ``w`` ascending eigenvalues, ``c`` the gradient, ``(n,)``.

    σ = 0 gives Newton's step, or, for an indefinite model, :func:`within_radius` with Δ = ∞.
    """
    w, c, unit, peak = _scaled(w, c, own)
    regularised = minimise(w, c, cubic(sigma * unit / peak))
    newton = minimise(w, c, radius(_own_radius(w, c)))
    found = jax.tree.map(lambda a, b: jnp.where(sigma > 0, a, b), regularised, newton)
    return found._replace(z=unit * found.z, multiplier=peak * found.multiplier)


def _scaled(
    w: jax.Array, c: jax.Array, own: Any
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """``w/p, c/‖c‖, ‖c‖/p, p``, ``p`` the largest eigenvalue in magnitude.

    In these units neither a square nor a quotient of the problem leaves the range of float32. With
    zero gradient, a step of length one in them has the length ``own``.
    """
    peak = jnp.max(jnp.abs(w), initial=0)
    peak = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
    size = jnp.where(jnp.any(c != 0), _length(c), peak * own)
    return w / peak, c / size, size / peak, peak


def _own_radius(w: jax.Array, c: jax.Array) -> jax.Array:
    """``∞`` for a positive definite model, else ``‖c/|w|‖``; 1 at a saddle with zero gradient."""
    unit = w.size * jnp.finfo(w.dtype).eps * jnp.max(jnp.abs(w))
    magnitude = jnp.linalg.norm(c / jnp.maximum(jnp.abs(w), jnp.where(unit > 0, unit, 1)))
    magnitude = jnp.where((magnitude == 0) & (w[0] < -unit), 1, magnitude)
    return jnp.where(w[0] > unit, jnp.inf, magnitude)


def _length(c: jax.Array) -> jax.Array:
    peak = jnp.max(jnp.abs(c))
    unit = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
    size = unit * jnp.linalg.norm(c / unit)
    return jnp.where((size > 0) & jnp.isfinite(size), size, 1)


def minimise(w: jax.Array, c: jax.Array, reach: Reach, semidefinite: bool = False) -> Minimiser:
    """The global minimiser in the eigenbasis.

    Args:
      w: eigenvalues in ascending order, ``(n,)``.
      c: the gradient's coefficients, ``(n,)``.
      reach: :func:`radius` or :func:`cubic`.
      semidefinite: as in :func:`within_radius`.
    """
    eps = jnp.finfo(w.dtype).eps
    lowest, size = w[0], jnp.linalg.norm(c)
    spread = jnp.max(jnp.abs(w))
    unit = eps * jnp.where(spread > 0, spread, 1)
    unbounded = reach.inverse(jnp.ones_like(lowest)) == 0
    # λ = floor + μ. Near the hard case μ is tiny beside the floor, and would be rounded away in λ.
    floor = jnp.maximum(-lowest, 0)
    base = jnp.where(lowest < 0, w - lowest, w)

    def step(mu: jax.Array) -> jax.Array:
        shifted = base + mu
        return -c / jnp.where(shifted > 0, shifted, unit * eps)

    def excess(mu: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``1/‖z‖ − 1/reach``, negative while the step is too long, and its derivative."""
        shifted = base + mu
        z = step(mu)
        norm = jnp.maximum(jnp.linalg.norm(z), jnp.finfo(w.dtype).tiny)
        slope = jnp.sum((z / norm) ** 2 / jnp.where(shifted > 0, shifted, unit * eps)) / norm
        return 1 / norm - reach.inverse(floor + mu), slope - reach.slope(floor + mu)

    # The hard case: the part outside the lowest eigenspace is too short even at μ = 0. Eigenvalues
    # that differ by rounding count as equal, a coefficient at rounding level as zero.
    bottom = w - lowest <= w.size * unit
    rest = jnp.where(bottom, 0, -c / jnp.where(bottom, 1, base))
    absent = jnp.linalg.norm(jnp.where(bottom, c, 0)) <= w.size * eps * size
    short = jnp.linalg.norm(rest) * reach.inverse(floor) < 1
    hard = (lowest <= 0) & absent & short & ~unbounded & (not semidefinite)

    definite = (lowest > w.size * unit) | semidefinite
    interior = definite & (excess(jnp.zeros_like(floor))[0] >= 0)

    def refine(carry):
        low, high, mu, count, _ = carry
        value, slope = excess(mu)
        low, high = jnp.where(value < 0, mu, low), jnp.where(value < 0, high, mu)
        newton = mu - value / jnp.where(slope > 0, slope, 1)
        inside = (newton > low) & (newton < high) & (slope > 0)
        following = jnp.where(inside, newton, 0.5 * (low + high))
        moved = jnp.abs(following - mu) > 4 * eps * mu
        return low, high, following, count + 1, moved

    top = jnp.maximum(reach.upper(lowest, size) - floor, unit * eps)
    start = (jnp.zeros_like(top), top, top, jnp.zeros((), jnp.int32), jnp.asarray(True))
    searching = ~(hard | interior | unbounded)
    _, _, mu, _, _ = jax.lax.while_loop(
        lambda carry: searching & carry[4] & (carry[3] < MAX_ITERATIONS), refine, start
    )
    mu = jnp.where(interior | hard | unbounded, 0, mu)
    z = jnp.where(hard, rest, step(mu))
    target = 1 / jnp.where(hard, reach.inverse(floor), 1)
    along = jnp.sqrt(
        jnp.maximum((target - jnp.linalg.norm(rest)) * (target + jnp.linalg.norm(rest)), 0)
    )
    z = jnp.where(hard, z.at[0].set(along), z)
    lam = floor + mu
    return Minimiser(z, lam, hard, interior)
