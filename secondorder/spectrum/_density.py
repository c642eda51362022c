"""Spectral density and log-determinant, by stochastic Lanczos quadrature.

``tr f(B) = n E[Σⱼ τⱼ² f(θⱼ)]`` over random unit vectors, with ``θ`` the eigenvalues of their ``T``
and ``τ`` the first entries of its eigenvectors: Gauss' quadrature for the spectral measure of the
vector (Golub and Meurant 1994; Ubaru, Chen and Saad 2017).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.operators._base import Operator
from secondorder.spectrum._extremes import checked_steps
from secondorder.spectrum._krylov import quadrature, quadrature_basis, rounding
from secondorder.spectrum._probes import Reading, brief, check_count, over_probes
from secondorder.tree import Params

FEW = 6  # smallest number of steps for an estimate of the quadrature's remainder


class Density(NamedTuple):
    """A smoothed density of eigenvalues, of integral one.

    Attributes:
      grid: ``(points,)``.
      value: ``(points,)``, the density on the grid.
      standard_error: ``(points,)``.
      products: number of products with the operator.
      nodes, weights: ``(samples, steps)``, the quadrature itself: ``Σ weights = 1`` per sample.
      width: the standard deviation of the Gaussian in place of each node.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> B = so.operators.Diagonal(jnp.array([1.0, 2.0, 4.0]))
      >>> density = so.spectral_density(B, jnp.zeros(3), jax.random.key(0), samples=2, steps=3)
      >>> isinstance(density, so.spectrum.Density), density.grid.shape == density.value.shape
      (True, True)
    """

    grid: jax.Array
    value: jax.Array
    standard_error: jax.Array
    products: jax.Array
    nodes: jax.Array
    weights: jax.Array
    width: jax.Array

    def __repr__(self) -> str:
        return brief(self)


def spectral_density(
    op: Operator,
    like: Params,
    key: jax.Array,
    *,
    samples: int = 8,
    steps: int = 64,
    points: int = 256,
    width: float | None = None,
) -> Density:
    """The density of the eigenvalues of B, smoothed by Gaussians, on a grid over all of them.

    Args:
      op: B, of any sign.
      like: a tree shaped like the parameters.
      key: of the probes.
      samples: number of probes.
      steps: products and vectors of memory for each; at most the dimension.
      points: points of the grid, which spans the nodes and three widths on either side.
      width: standard deviation of the Gaussians; ``None`` takes a hundredth of the nodes' range.

    Raises:
      ValueError: ``samples``, ``steps`` or ``points`` too small, or ``width`` not positive.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> H = so.hessian(lambda p: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * p**2), jnp.ones(3))
      >>> density = so.spectral_density(H, jnp.ones(3), jax.random.key(0), width=0.1)
      >>> round(float(jnp.trapezoid(density.value, density.grid)), 2)
      1.0

    Source: Lin, Saad and Yang (2016); Ghorbani, Krishnan and Xiao (2019).
    """
    check_count("spectral_density", "samples", samples)
    check_count("spectral_density", "points", points, 2)
    steps = checked_steps("spectral_density", steps, like)
    settings.POSITIVE.or_none().of("spectral_density", "width", width)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(samples))
    nodes, weights = jax.lax.map(lambda k: quadrature(*quadrature_basis(op, like, k, steps)), keys)
    # A node of zero weight adds nothing, so the grid need not contain it.
    counts = weights > jnp.finfo(weights.dtype).eps
    low = jnp.min(nodes, initial=jnp.inf, where=counts)
    high = jnp.max(nodes, initial=-jnp.inf, where=counts)
    spread = jnp.maximum(high - low, 1e-3 * jnp.maximum(jnp.abs(high), jnp.abs(low)))
    size = jnp.where(spread > 0, spread, 1) / 100 if width is None else width
    size = jnp.asarray(size, nodes.dtype)
    grid = jnp.linspace(low - 3 * size, high + 3 * size, points)

    def smeared(node, weight):
        bells = jnp.exp(-0.5 * ((grid[:, None] - node[None]) / size) ** 2)
        return bells @ weight

    # Heights in units of one Gaussian: other squares may under- or overflow.
    curves = jax.vmap(smeared)(nodes, weights)
    bell = 1 / (size * (2 * jnp.pi) ** 0.5)
    error = jnp.full_like(grid, jnp.inf)
    if samples > 1:
        error = bell * jnp.std(curves, axis=0, ddof=1) / samples**0.5
    products = jnp.asarray(samples * steps, jnp.int32)
    return Density(grid, bell * jnp.mean(curves, axis=0), error, products, nodes, weights, size)


def logdet(
    op: Operator,
    like: Params,
    key: jax.Array,
    *,
    damping: float | jax.Array = 0.0,
    samples: int = 16,
    steps: int = 64,
) -> Reading:
    """``log det(B + λI)`` of a positive definite ``B + λI``; NaN where a node is not positive.

    A node below the rounding of the largest counts as not positive. The standard error includes an
    estimate of the change by more steps; it is infinite where fewer than six steps allow none.

    Args:
      op: B.
      like: a tree shaped like the parameters.
      key: of the probes.
      damping: λ.
      samples: number of probes.
      steps: products and vectors of memory for each; at most the dimension.

    Raises:
      ValueError: ``samples`` or ``steps`` below 1.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> H = so.hessian(lambda p: jnp.sum(jnp.array([0.5, 2.0, 4.0]) * p**2), jnp.ones(3))
      >>> reading = so.logdet(H, jnp.ones(3), jax.random.key(0))
      >>> round(float(reading.value - jnp.log(32.0)), 3)
      0.0

    Source: Ubaru, Chen and Saad (2017).
    """
    settings.NOT_NEGATIVE.of("logdet", "damping", damping)
    check_count("logdet", "samples", samples)
    steps = checked_steps("logdet", steps, like)
    third = steps // 3

    def one(key):
        basis, used = quadrature_basis(op, like, key, steps)

        def sums(most: int):
            nodes, weights = quadrature(basis, jnp.minimum(used, most))
            shifted, doubt = nodes + damping, rounding(nodes, like)
            # A node of zero weight is ignored, even where it is not positive.
            positive = shifted > doubt
            known = jnp.where(positive, shifted, 1)
            log = tree.nan_unless(positive | ~(weights > 0), jnp.log(known))
            doubts = doubt / known + jnp.finfo(log.dtype).eps * jnp.abs(log)
            total = lambda x: tree.size(like) * jnp.sum(weights * x)
            return total(log), total(doubts)

        value, doubt = sums(steps)
        ended = jnp.where(basis.off[used - 1] > 0, 0, 1).astype(doubt.dtype)
        zero = jnp.zeros_like(doubt)
        return (value, sums(steps - 2 * third)[0], sums(steps - third)[0], ended), (
            doubt,
            zero,
            zero,
            zero,
        )

    means, errors = over_probes(one, key, samples)
    value, error = means[0], errors[0]
    if steps < tree.size(like):
        # Gauss' sums fall to the value: a geometric series estimates the remaining distance, and
        # three times that covers the slower fall of the first steps.
        before, last = jnp.abs(means[1] - means[2]), jnp.abs(means[2] - value)
        falls = last < before
        rest = 3 * last**2 / jnp.where(falls, before - last, 1)
        rest = jnp.where(falls, rest, jnp.where(last > error, jnp.inf, last))
        rest = jnp.where(means[3] == 1, 0, rest if steps >= FEW else jnp.inf)
        error = jnp.hypot(error, rest)
    return Reading(value, error, jnp.asarray(samples * steps, jnp.int32))
