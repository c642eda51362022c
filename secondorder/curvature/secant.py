"""Curvature learnt from the gradients along the way: no second derivative is ever taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from secondorder import tree
from secondorder.curvature.base import Curvature
from secondorder.operators.dense import ravel
from secondorder.operators.secant import HIGHEST, InverseMatrix, LimitedMemory, Matrix, Pairs
from secondorder.tree import Params

# A pair counts where its curvature stands out from rounding, relative to both vectors.
RELATIVE = 1e-8


class Secant(NamedTuple):
    """The memory of a quasi-Newton curvature.

    Attributes:
      model: a matrix, or :class:`Pairs`.
      params, grads: the point of the last accepted step; what ``s`` and ``y`` are counted from.
      count: points seen, 0 before the first.
      pairs: pairs taken.
    """

    model: Any
    params: Params
    grads: Params
    count: jax.Array
    pairs: jax.Array


def _secant(start: Callable, learn: Callable, operator: Callable) -> Curvature:
    """A curvature from ``start(params) -> model``, ``learn(model, s, y, first) -> (model, taken)``
    and ``operator(model, first, grads, free) -> Operator``, of the free parameters alone."""

    def init(params: Params) -> Secant:
        zeros = lambda: tree.accumulator(tree.zeros_like(params))
        none = lambda: jnp.zeros((), jnp.int32)
        return Secant(start(params), zeros(), zeros(), none(), none())

    def update(grads, state: Secant, params, value_fn):
        # On bounds ``grads`` has zeros, not differences; the pairs are of the whole gradient.
        face = getattr(value_fn, "face", None)
        free = None if face is None else face.free
        here, g = tree.accumulator(params), tree.accumulator(grads if face is None else face.grad)
        s = jax.tree.map(jnp.subtract, here, state.params)
        y = jax.tree.map(jnp.subtract, g, state.grads)
        model, taken = learn(state.model, s, y, state.pairs == 0)
        taken = taken & (state.count > 0)
        model = tree.where(taken, model, state.model)
        pairs = state.pairs + jnp.where(taken, 1, 0).astype(jnp.int32)
        new = Secant(model, here, g, state.count + 1, pairs)
        return operator(model, pairs == 0, tree.accumulator(grads), free), new

    return Curvature(init, update)


def _eye(params: Params) -> jax.Array:
    return jnp.eye(tree.size(params), dtype=tree.dtype(params))


def _unit(grads: Params) -> jax.Array:
    """The length of the very first step: one, along the gradient. Nothing is known yet."""
    norm = tree.norm(grads)
    return 1 / jnp.where(norm > 0, norm, 1)


def _pairs_of(free: jax.Array) -> jax.Array:
    return free & free[:, None]


def _inverse_among(free: jax.Array, inverse: jax.Array) -> jax.Array:
    """``(B_FF)⁻¹ = H_FF − H_FA H_AA⁻¹ H_AF`` of ``B = H⁻¹``, zero elsewhere."""
    eye = jnp.eye(free.size, dtype=inverse.dtype)
    rest = jnp.where(_pairs_of(~free), inverse, eye)
    across = jnp.where(~free[:, None] & free, inverse, 0)
    low = jnp.linalg.cholesky(rest)
    part = solve_triangular(low, across, lower=True)
    return jnp.where(_pairs_of(free), inverse - jnp.matmul(part.T, part, precision=HIGHEST), 0)


def _among(free: Params, pairs: Pairs) -> Pairs:
    """The pairs' parts in the free parameters; those without positive curvature there left out."""
    s, y = (jax.tree.map(lambda m, x: jnp.where(m, x, 0), free, x) for x in (pairs.s, pairs.y))
    over = jax.vmap(lambda s, y: (tree.vdot(s, y), tree.vdot(y, y), tree.norm(s) * tree.norm(y)))
    sy, yy, size = over(s, y)
    kept = (pairs.rho > 0) & (sy > RELATIVE * size)
    rho = jnp.where(kept, 1 / jnp.where(kept, sy, 1), 0)
    last = jnp.max(jnp.where(kept, jnp.arange(kept.size), -1))
    gamma = jnp.where(last >= 0, sy[last] / yy[last], pairs.gamma)
    return Pairs(s, y, rho.astype(pairs.rho.dtype), gamma.astype(pairs.gamma.dtype))


def bfgs() -> Curvature:
    """``B`` by BFGS, kept as its inverse: ``H⁺ = (I − ρsyᵀ) H (I − ρysᵀ) + ρssᵀ``, ``ρ = 1/sᵀy``.

    Positive definite as long as ``sᵀy > 0``, which a strong-Wolfe line search ensures; other pairs
    are left out. Before the first pair ``H`` is rescaled to ``sᵀy/yᵀy`` (Nocedal and Wright 2006,
    equations 6.17 and 6.20).
    """

    def learn(inverse, s, y, first):
        s, y = ravel(s), ravel(y)
        sy, yy = jnp.dot(s, y, precision=HIGHEST), jnp.dot(y, y, precision=HIGHEST)
        taken = sy > RELATIVE * jnp.linalg.norm(s) * jnp.linalg.norm(y)
        rho = 1 / jnp.where(taken, sy, 1)
        scaled = jnp.where(first, sy / jnp.where(yy > 0, yy, 1), 1) * inverse
        hy = jnp.matmul(scaled, y, precision=HIGHEST)
        yhy = jnp.dot(y, hy, precision=HIGHEST)
        cross = jnp.outer(s, hy)
        new = scaled - rho * (cross + cross.T) + rho * (1 + rho * yhy) * jnp.outer(s, s)
        return new, taken

    def operator(inverse, first, grads, free):
        inverse = jnp.where(first, _unit(grads), 1) * inverse
        return InverseMatrix(inverse if free is None else _inverse_among(ravel(free) > 0, inverse))

    return _secant(_eye, learn, operator)


def sr1() -> Curvature:
    """``B⁺ = B + rrᵀ/(rᵀs)`` with ``r = y − Bs``: symmetric, rank one, free to be indefinite.

    A pair is left out where ``|rᵀs| ≤ 1e-8 ‖r‖‖s‖`` (Nocedal and Wright 2006, equation 6.26). The
    first matrix is scaled to ``yᵀy/sᵀy``, in magnitude.
    """

    def learn(matrix, s, y, first):
        s, y = ravel(s), ravel(y)
        sy, yy = jnp.dot(s, y, precision=HIGHEST), jnp.dot(y, y, precision=HIGHEST)
        gamma = yy / jnp.where(sy == 0, 1, jnp.abs(sy))
        matrix = jnp.where(first & (sy != 0) & (yy > 0), gamma, 1) * matrix
        r = y - jnp.matmul(matrix, s, precision=HIGHEST)
        rs = jnp.dot(r, s, precision=HIGHEST)
        size = jnp.linalg.norm(r) * jnp.linalg.norm(s)
        moved = jnp.linalg.norm(s) > 0
        updates = jnp.abs(rs) > RELATIVE * size
        new = matrix + jnp.where(updates, 1 / jnp.where(updates, rs, 1), 0) * jnp.outer(r, r)
        # Also a first pair that only sets the scale is taken: the scaled matrix is right along s.
        return new, moved & (updates | first)

    def operator(matrix, first, grads, free):
        matrix = jnp.where(first, 1 / _unit(grads), 1) * matrix
        return Matrix(matrix if free is None else jnp.where(_pairs_of(ravel(free) > 0), matrix, 0))

    return _secant(_eye, learn, operator)


def lbfgs(memory: int = 10) -> Curvature:
    """BFGS from the last ``memory`` pairs alone, matrix-free (Nocedal 1980; Liu and Nocedal 1989).

    Args:
      memory: how many pairs; 2 × memory vectors are kept.
    """

    def start(params):
        rows = lambda: jax.tree.map(
            lambda x: jnp.zeros((memory, *x.shape), tree.accumulation_dtype(x.dtype)), params
        )
        dtype = tree.dtype(params)
        return Pairs(rows(), rows(), jnp.zeros(memory, dtype), jnp.ones((), dtype))

    def learn(pairs: Pairs, s, y, first):
        del first
        sy, yy = tree.vdot(s, y), tree.vdot(y, y)
        taken = sy > RELATIVE * tree.norm(s) * tree.norm(y)
        push = lambda rows, x: jnp.concatenate([rows[1:], x[None].astype(rows.dtype)])
        return Pairs(
            jax.tree.map(push, pairs.s, s),
            jax.tree.map(push, pairs.y, y),
            push(pairs.rho, 1 / jnp.where(taken, sy, 1)),
            (sy / jnp.where(yy > 0, yy, 1)).astype(pairs.gamma.dtype),
        ), taken

    def operator(pairs: Pairs, first, grads, free):
        if free is not None:
            pairs = _among(free, pairs)
        gamma = jnp.where(first, _unit(grads).astype(pairs.gamma.dtype), pairs.gamma)
        return LimitedMemory(pairs._replace(gamma=gamma))

    return _secant(start, learn, operator)
