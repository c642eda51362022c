"""Quasi-Newton curvature from differences of gradients: BFGS, its scaled kin, L-BFGS, SR1."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import meshes, settings, tree
from secondorder.curvature._base import Curvature
from secondorder.linalg import _lapack as lapack
from secondorder.objectives._at_point import at_point
from secondorder.operators._dense import ravel
from secondorder.operators._quasi_newton import HIGHEST, InverseMatrix, LimitedMemory, Matrix, Pairs
from secondorder.tree import Params

# Smallest curvature of a pair, relative to the lengths of both vectors; below it is rounding.
RELATIVE = 1e-8


class Secant(NamedTuple):
    """The memory of a quasi-Newton curvature.

    Attributes:
      model: a matrix, or :class:`Pairs`.
      params, grads: the point of the last accepted step, the start of ``s`` and ``y``.
      count: number of points, 0 before the first.
      pairs: number of pairs used.
    """

    model: jax.Array | Pairs
    params: Params
    grads: Params
    count: jax.Array
    pairs: jax.Array


def _secant(start: Callable, learn: Callable, operator: Callable) -> Curvature:
    """A curvature from ``start(params) -> model``, ``learn(model, s, y, g, first) -> (model,
    taken)``, ``g`` the gradient before the step ``s``, and ``operator(model, first, grads, free) ->
    Operator`` on the free parameters."""

    def init(params: Params) -> Secant:
        zeros = lambda: tree.accumulator(tree.zeros_like(params))
        none = lambda: jnp.zeros((), jnp.int32)
        return Secant(start(params), zeros(), zeros(), none(), none())

    def update(grads, state: Secant, params, value_fn):
        # On bounds ``grads`` is set to zero, so the pairs use the whole gradient.
        face = at_point(value_fn, "update").face
        free = None if face is None else face.free
        here, g = tree.accumulator(params), tree.accumulator(grads if face is None else face.grad)
        s = jax.tree.map(jnp.subtract, here, state.params)
        y = jax.tree.map(jnp.subtract, g, state.grads)
        model, taken = learn(state.model, s, y, state.grads, state.pairs == 0)
        taken = taken & (state.count > 0)
        model = tree.where(taken, model, state.model)
        if not isinstance(model, Pairs):
            model = meshes.held_whole(model, params)
        pairs = state.pairs + jnp.where(taken, 1, 0).astype(jnp.int32)
        new = Secant(model, here, g, state.count + 1, pairs)
        return operator(model, pairs == 0, tree.accumulator(grads), free), new

    return Curvature(init, update)


def _eye(params: Params) -> jax.Array:
    return jnp.eye(tree.size(params), dtype=tree.dtype(params))


def _unit(grads: Params) -> jax.Array:
    """The scale of the first step, of length one along the gradient, before any pair."""
    norm = tree.norm(grads)
    return 1 / jnp.where(norm > 0, norm, 1)


def _unit_vector(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The length of a vector, and the vector divided by it."""
    size = tree.norm(x)
    return size, x / jnp.where(size > 0, size, 1)


def _pair(s: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """``s/‖s‖, y/‖y‖``, their cosine, and ``‖s‖/‖y‖``, without overflow or underflow."""
    short, s = _unit_vector(s)
    steep, y = _unit_vector(y)
    ratio = short / jnp.where(steep > 0, steep, 1)
    return s, y, jnp.dot(s, y, precision=HIGHEST), jnp.where(steep > 0, ratio, 0)


def _along(s: Params, y: Params) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``sᵀy/‖y‖``, ``‖y‖`` (one for zero) and ``‖s‖``, since ``‖y‖²`` may overflow."""
    steep = tree.norm(y)
    steep = jnp.where(steep > 0, steep, 1)
    return tree.vdot(s, tree.scale(1 / steep, y)), steep, tree.norm(s)


def _pairs_of(free: jax.Array) -> jax.Array:
    return free[None, :] & free[:, None]


def _inverse_among(free: jax.Array, inverse: jax.Array) -> jax.Array:
    """``(B_FF)⁻¹ = H_FF − H_FA H_AA⁻¹ H_AF`` of ``B = H⁻¹``, zero elsewhere."""
    eye = jnp.eye(free.size, dtype=inverse.dtype)
    rest = jnp.where(_pairs_of(~free), inverse, eye)
    across = jnp.where(~free[:, None] & free[None, :], inverse, 0)
    low = lapack.cholesky(rest)
    part = lapack.with_lower(low, across)
    return jnp.where(_pairs_of(free), inverse - jnp.matmul(part.T, part, precision=HIGHEST), 0)


def _among(free: Params, pairs: Pairs) -> Pairs:
    """The pairs restricted to the free parameters, without pairs of nonpositive curvature there."""
    s, y = (
        jax.tree.map(lambda m, x: jnp.where(m[None], x, 0), free, x) for x in (pairs.s, pairs.y)
    )
    along, steep, short = jax.vmap(_along)(s, y)
    kept = (pairs.rho > 0) & (along > RELATIVE * short)
    rho = jnp.where(kept, 1 / jnp.where(kept, along * steep, 1), 0)
    last = jnp.max(jnp.where(kept, jnp.arange(kept.size), -1))
    gamma = jnp.where(last >= 0, along[last] / steep[last], pairs.gamma)
    return Pairs(s, y, rho.astype(pairs.rho.dtype), gamma.astype(pairs.gamma.dtype))


def bfgs() -> Curvature:
    """``B`` by BFGS, kept as its inverse: ``H⁺ = (I − ρsyᵀ) H (I − ρysᵀ) + ρssᵀ``, ``ρ = 1/sᵀy``.

    Positive definite if ``sᵀy > 0``, which a strong-Wolfe line search ensures; other pairs are left
    out. The first pair rescales ``H`` to ``sᵀy/yᵀy`` before its update (Nocedal and Wright 2006,
    equations 6.17 and 6.20).

    Example:
      >>> import secondorder as so
      >>> inverse, policy = so.solvers.apply_inverse(), so.trust.fixed()
      >>> opt = so.scale_by_curvature(so.curvature.bfgs(), inverse, policy)
    """

    def learn(inverse, s, y, g, first):
        del g
        s, y, cosine, ratio = _pair(ravel(s), ravel(y))
        taken = cosine > RELATIVE
        rho = 1 / jnp.where(taken, cosine, 1)
        scaled = jnp.where(first, cosine * ratio, 1) * inverse
        hy = jnp.matmul(scaled, y, precision=HIGHEST)
        yhy = jnp.dot(y, hy, precision=HIGHEST)
        cross = jnp.outer(s, hy)
        new = scaled - rho * (cross + cross.T) + rho * (ratio + rho * yhy) * jnp.outer(s, s)
        return new, taken

    return _secant(_eye, learn, _inverse_matrix)


def _inverse_matrix(inverse, first, grads, free) -> InverseMatrix:
    inverse = jnp.where(first, _unit(grads), 1) * inverse
    return InverseMatrix(inverse if free is None else _inverse_among(ravel(free) > 0, inverse))


def ssbfgs() -> Curvature:
    """BFGS of ``H/τ`` in place of ``H``, with ``τ = min(1, sᵀy / sᵀBs)`` (Al-Baali 1998).

    Where ``H`` is too small along a step, it grows in all directions, and not only in that one.
    Pairs and first scale are those of :func:`bfgs`. An ``H`` that has lost its definiteness to
    rounding, at a condition number of 1/ε, starts anew from the next pair.

    Example:
      >>> import secondorder as so
      >>> inverse, policy = so.solvers.apply_inverse(), so.trust.fixed()
      >>> opt = so.scale_by_curvature(so.curvature.ssbfgs(), inverse, policy)
    """
    return _self_scaled(lambda b, h, n: (1.0, jnp.minimum(1, 1 / b)))


def ssbroyden() -> Curvature:
    """The scaled member of Broyden's family that fits each pair (Al-Baali et al. 2014).

    ``H⁺ = (H − Hyyᵀ H/yᵀHy + φ yᵀHy vvᵀ)/τ + ssᵀ/sᵀy`` with ``v = s/sᵀy − Hy/yᵀHy``, and with
    ``b = sᵀBs/sᵀy``, ``h = yᵀHy/sᵀy``, ``a = bh − 1``, ``c = √(a/(1+a))``, ``ρ = min(1, h(1−c))``:

    * ``θ = max((ρ−1)/a, min(1/ρ, (1−b)/b))`` and ``σ = 1 + aθ``;
    * ``φ = (1−θ)/σ``, which is 1 for BFGS and 0 for DFP;
    * ``τ = min(1, 1/b) min(σ^{1/(1−n)}, 1/θ)`` if ``θ > 0``, else
      ``min(min(1, 1/b) σ^{1/(1−n)}, σ)``.

    Since ``σ ≥ ρ > 0``, it is positive definite if ``sᵀy > 0``. Otherwise as :func:`ssbfgs`.

    Example:
      >>> import secondorder as so
      >>> inverse, policy = so.solvers.apply_inverse(), so.trust.fixed()
      >>> opt = so.scale_by_curvature(so.curvature.ssbroyden(), inverse, policy)
    """
    return _self_scaled(_broyden)


def _self_scaled(member: Callable) -> Curvature:
    """The scaled Broyden family, with ``member(b, h, n) -> (φ, τ)`` for each pair after the first.

    ``φ = τ = 1`` is BFGS. ``sᵀBs`` is ``(sᵀg)²/gᵀHg`` since ``s = −αHg``; of another step, such as
    one that bounds have cut, it is more (Cauchy and Schwarz), which scales less.
    """

    def learn(inverse, s, y, g, first):
        s, y, cosine, ratio = _pair(ravel(s), ravel(y))
        _, g = _unit_vector(ravel(g))
        taken = cosine > RELATIVE
        rho = 1 / jnp.where(taken, cosine, 1)
        seen = jnp.stack([y, g])
        images = jnp.matmul(seen, inverse, precision=HIGHEST)
        # A quotient below 2/√κ, of the condition number κ, has no positive definite matrix.
        least = jnp.finfo(s.dtype).eps ** 0.5
        lost = jnp.any(jnp.sum(seen * images, axis=1) <= least * jax.vmap(tree.norm)(images))
        anew, gamma = first | lost, cosine * ratio
        inverse = jnp.where(anew, gamma * jnp.eye(s.size, dtype=s.dtype), inverse)
        hy, hg = jnp.where(anew, gamma * seen, images)
        yhy, ghg, slope = (jnp.dot(*pair, precision=HIGHEST) for pair in ((y, hy), (g, hg), (s, g)))
        yhy = jnp.where(taken & (yhy > 0), yhy, 1)
        # Of unit vectors s and y: sᵀy is their cosine, times or by the ratio of their lengths.
        h = rho * yhy / jnp.where(ratio > 0, ratio, 1)
        b = rho * ratio * slope * (slope / jnp.where(ghg > 0, ghg, 1))
        # By Cauchy and Schwarz bh ≥ 1.
        phi, tau = (jnp.where(anew, 1, x) for x in member(jnp.maximum(b, 1 / h), h, s.size))
        # With v formed first, H stays definite longer than with its square multiplied out.
        v = rho * s - hy / yhy
        kept = inverse - jnp.outer(hy, hy) / yhy + phi * yhy * jnp.outer(v, v)
        return kept / tau + rho * ratio * jnp.outer(s, s), taken

    return _secant(_eye, learn, _inverse_matrix)


def _broyden(b: jax.Array, h: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """φ and τ of :func:`ssbroyden`."""
    a = jnp.maximum(b * h - 1, jnp.finfo(b.dtype).eps)  # for a → 0 all members agree: v = 0
    # h(1 − c) = 1/(b(1 + c)), which has no difference of nearly equal numbers.
    rho = jnp.minimum(1, 1 / (b * (1 + jnp.sqrt(a / (1 + a)))))
    theta = jnp.maximum((rho - 1) / a, jnp.minimum(1 / rho, (1 - b) / b))
    sigma = jnp.maximum(1 + a * theta, rho)
    scale, power = jnp.minimum(1, 1 / b), sigma ** (-1 / max(n - 1, 1))
    above = scale * jnp.minimum(power, 1 / jnp.where(theta > 0, theta, 1))
    return (1 - theta) / sigma, jnp.where(theta > 0, above, jnp.minimum(scale * power, sigma))


def sr1() -> Curvature:
    """``B⁺ = B + rrᵀ/(rᵀs)`` with ``r = y − Bs``: symmetric rank one; may be indefinite.

    A pair is left out where ``|rᵀs| ≤ 1e-8 ‖r‖‖s‖`` (Nocedal and Wright 2006, equation 6.26). The
    first matrix is scaled to ``yᵀy/sᵀy``, in magnitude.

    Example:
      >>> import secondorder as so
      >>> solver, policy = so.solvers.exact_region(), so.trust.radius()
      >>> opt = so.scale_by_curvature(so.curvature.sr1(), solver, policy)
    """

    def learn(matrix, s, y, g, first):
        del g
        moved = jnp.any(ravel(s) != 0)
        s, y, cosine, ratio = _pair(ravel(s), ravel(y))
        known = (cosine != 0) & (ratio > 0)
        gamma = 1 / jnp.where(known, jnp.abs(cosine) * ratio, 1)
        matrix = jnp.where(first, gamma, 1) * matrix
        r = y / jnp.where(ratio > 0, ratio, 1) - jnp.matmul(matrix, s, precision=HIGHEST)
        size, r = _unit_vector(r)
        along = jnp.dot(r, s, precision=HIGHEST)
        updates = jnp.abs(along) > RELATIVE
        weight = jnp.where(updates, size / jnp.where(updates, along, 1), 0)
        # A first pair that only sets the scale counts too: the scaled matrix is exact along s.
        return matrix + weight * jnp.outer(r, r), moved & (updates | first)

    def operator(matrix, first, grads, free):
        matrix = jnp.where(first, 1 / _unit(grads), 1) * matrix
        return Matrix(matrix if free is None else jnp.where(_pairs_of(ravel(free) > 0), matrix, 0))

    return _secant(_eye, learn, operator)


@settings.checked()
def lbfgs(memory: int = 10) -> Curvature:
    """BFGS from the last ``memory`` pairs, matrix-free (Nocedal 1980; Liu and Nocedal 1989).

    Args:
      memory: number of pairs; the state has 2 × memory vectors.

    Example:
      >>> import secondorder as so
      >>> inverse, policy = so.solvers.apply_inverse(), so.trust.fixed()
      >>> opt = so.scale_by_curvature(so.curvature.lbfgs(), inverse, policy)
    """

    def start(params):
        rows = lambda: tree.rows_like(tree.accumulator(tree.zeros_like(params)), memory)
        dtype = tree.dtype(params)
        return Pairs(rows(), rows(), jnp.zeros(memory, dtype), jnp.ones((), dtype))

    def learn(pairs: Pairs, s, y, g, first):
        del g, first
        along, steep, short = _along(s, y)
        taken = along > RELATIVE * short
        push = lambda rows, x: jnp.concatenate([rows[1:], x[None].astype(rows.dtype)])
        return Pairs(
            jax.tree.map(push, pairs.s, s),
            jax.tree.map(push, pairs.y, y),
            push(pairs.rho, 1 / jnp.where(taken, along * steep, 1)),
            (along / steep).astype(pairs.gamma.dtype),
        ), taken

    def operator(pairs: Pairs, first, grads, free):
        if free is not None:
            pairs = _among(free, pairs)
        gamma = jnp.where(first, _unit(grads).astype(pairs.gamma.dtype), pairs.gamma)
        return LimitedMemory(pairs._replace(gamma=gamma))

    return _secant(start, learn, operator)
