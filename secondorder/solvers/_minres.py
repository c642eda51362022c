"""The iteration of minimal residuals (MINRES) for a symmetric system that may be indefinite.

Lanczos' process with three vectors, and a QR factorisation of its tridiagonal matrix that grows by
one rotation a step. Unlike conjugate gradients it needs no positive definite matrix, and its
residual never grows.

Source: Paige and Saunders (1975), section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.tree import Params

Map = Callable[[Params], Params]


class Iterate(NamedTuple):
    """A point of the iteration; norms are those of the preconditioner ``M⁻¹``.

    Attributes:
      step: ``x``.
      residual: ``‖b − Ax‖``.
      least: whether the residual is the least of all, to rounding: ``‖Ar‖ ≤ √ε ‖A‖ ‖r‖``. Nearer
        to zero it does not come; further iterates would grow along the kernel.
      count: number of iterations.
      indefinite: whether the preconditioner has shown to be indefinite.
      before, here: the last two vectors of Lanczos' process: the first times ``beta``, the second
        of length ``beta``.
      image: ``M⁻¹`` of the second.
      beta, size: the last off-diagonal entry, and the norm of the tridiagonal matrix.
      entries: the two entries of its next column above the diagonal, ``ε`` and ``δ̄``.
      rotation: cosine and sine of the last rotation.
      directions: the last two directions of ``x``.
    """

    step: Params
    residual: jax.Array
    least: jax.Array
    count: jax.Array
    indefinite: jax.Array
    before: Params
    here: Params
    image: Params
    beta: jax.Array
    size: jax.Array
    entries: tuple[jax.Array, jax.Array]
    rotation: tuple[jax.Array, jax.Array]
    directions: tuple[Params, Params]


def begin(b: Params, precondition: Map) -> Iterate:
    """The first point, zero."""
    zeros, image = tree.zeros_like(b), precondition(b)
    length, indefinite = _length(b, image)
    zero, one = jnp.zeros_like(length), jnp.ones_like(length)
    return Iterate(
        step=zeros,
        residual=length,
        least=jnp.asarray(False),
        count=jnp.zeros((), jnp.int32),
        indefinite=indefinite,
        before=zeros,
        here=b,
        image=image,
        beta=length,
        size=zero,
        entries=(zero, zero),
        rotation=(-one, zero),
        directions=(zeros, zeros),
    )


def advance(at: Iterate, product: Map, precondition: Map) -> Iterate:
    """The next point, for one product."""
    v = tree.scale(_inverse(at.beta), at.image)
    rest = tree.axpy(-1.0, at.before, product(v))
    alpha = tree.vdot(v, rest)
    rest = tree.axpy(-alpha * _inverse(at.beta), at.here, rest)
    image = precondition(rest)
    beta, indefinite = _length(rest, image)

    (epsilon, bar), (cosine, sine) = at.entries, at.rotation
    delta, diagonal = cosine * bar + sine * alpha, sine * bar - cosine * alpha
    entries = sine * beta, -cosine * beta
    size = jnp.maximum(at.size, jnp.hypot(alpha, beta))
    # ‖Ar‖/‖r‖ at the point before; where it is rounding, the step from there is left out.
    slope, gamma = jnp.hypot(diagonal, entries[1]), jnp.hypot(diagonal, beta)
    least = slope <= jnp.finfo(slope.dtype).eps ** 0.5 * size
    scale = jnp.where(least, 0, _inverse(gamma))
    cosine, sine = diagonal * scale, jnp.where(least, 1, beta * scale)
    first, second = at.directions
    direction = tree.axpy(-epsilon, first, tree.axpy(-delta, second, v))
    direction = tree.scale(scale, direction)
    return Iterate(
        step=tree.axpy(cosine * at.residual, direction, at.step),
        residual=sine * at.residual,
        least=least,
        count=at.count + 1,
        indefinite=at.indefinite | indefinite,
        before=tree.scale(beta * _inverse(at.beta), at.here),
        here=rest,
        image=image,
        beta=beta,
        size=size,
        entries=entries,
        rotation=(cosine, sine),
        directions=(second, direction),
    )


def _inverse(x: jax.Array) -> jax.Array:
    return 1 / jnp.where(x > 0, x, 1)


def _length(x: Params, image: Params) -> tuple[jax.Array, jax.Array]:
    """``√(x · M⁻¹x)`` without under- or overflow, and whether the square is negative."""
    peaks = [jnp.where(peak > 0, peak, 1) for peak in map(tree.max_abs, (x, image))]
    scaled = (tree.scale(1 / peak, y) for peak, y in zip(peaks, (x, image), strict=True))
    square = tree.vdot(*scaled)
    roots = jnp.sqrt(peaks[0]) * jnp.sqrt(peaks[1])
    return jnp.sqrt(jnp.maximum(square, 0)) * roots, square < 0
