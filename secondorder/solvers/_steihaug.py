"""Truncated conjugate gradients in a trust region: Steihaug (1983) and Toint (1981)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver
from secondorder.solvers._conjugate_gradients import Iterate, advance, begin
from secondorder.step import Report, Step, Stop, make_step
from secondorder.tree import Params


class Region(NamedTuple):
    """Memory of the solver: an estimate of the units of the parameters.

    Attributes:
      size: ``‖D⁻¹ g‖`` of the last accepted step; infinite before the first.
      curvature: ``D²``, an estimate of the curvature's diagonal.
      unit: factor of ``‖D d‖`` that keeps the length of the last step when D changes.
      known: whether ``curvature`` contains a measurement.
    """

    size: jax.Array
    curvature: Params
    unit: jax.Array
    known: jax.Array


class _Carry(NamedTuple):
    at: Iterate  # in the coordinates D d
    stopped: jax.Array  # −1 while running
    curvature: Params  # the current estimate of D²
    known: jax.Array


@settings.checked(max_steps=settings.COUNT)
def steihaug(max_steps: int = 100, forcing: float = 0.5) -> Solver:
    """``min m(d)`` over ``‖D d‖ ≤ Δ`` by truncated conjugate gradients, preconditioned by ``D²``.

    CG starts from zero and stops at the required residual, at the boundary, or at the first
    direction of non-positive curvature, which it follows to the boundary. Δ = ∞ (the start of
    ``trust.radius()``) is allowed: the length along a direction of negative curvature is then given
    by the magnitude of the curvature.

    ``D`` starts as the identity and is estimated from the products of CG at no extra cost: ``D²``
    is the diagonal of the BFGS update by the pairs ``(u, B u)`` of CG's directions (Gilbert and
    Lemaréchal 1989). If parameters differ in size by orders of magnitude, CG without ``D`` only
    solves for the few steepest of them.

    The required relative residual is ``min(forcing, 0.9 (‖D⁻¹g‖/‖D⁻¹g_last‖)²)``, which makes the
    convergence superlinear (Eisenstat and Walker 1996, choice 2).

    Args:
      max_steps: maximum number of products per step.
      forcing: upper bound of the required relative residual, and its value at the first step.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.exact(so.hessian), so.solvers.steihaug(), so.trust.radius())

    Source: Toint (1981); Steihaug (1983); Nocedal and Wright (2006), algorithm 7.2.
    """

    def init(params):
        number = lambda x: jnp.full((), x, tree.dtype(params))
        ones = jax.tree.map(jnp.ones_like, tree.accumulator(tree.zeros_like(params)))
        return Region(number(jnp.inf), ones, number(1), jnp.asarray(False))

    def solve(quadratic: Quadratic, factors: tuple, state: Region, radius: jax.Array):
        del factors
        return _solve(quadratic, state, radius, max_steps, forcing)

    def measure(factors: tuple, state: Region, direction: Params) -> jax.Array:
        del factors
        root = jax.tree.map(jnp.sqrt, state.curvature)
        return state.unit * tree.norm(jax.tree.map(jnp.multiply, direction, root))

    return Solver(init, solve, measure=measure, reads="radius")


def _solve(
    quadratic: Quadratic, state: Region, radius: jax.Array, max_steps: int, forcing: float
) -> tuple[Step, Region]:
    root = jax.tree.map(jnp.sqrt, state.curvature)
    grad = _over(tree.accumulator(quadratic.grad), root)
    size = tree.norm(grad)
    # The gradient is scaled to length one: squares of a tiny gradient would underflow.
    unit = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    product = lambda v: _over(quadratic.curvature.mv(_over(v, root)), root)
    final = _iterate(
        product,
        tree.scale(1 / unit, grad),
        root,
        state,
        radius / state.unit / unit,
        _tolerance(size, state, forcing),
        max_steps,
    )
    scaled, residual = (tree.scale(unit, x) for x in (final.at.step, final.at.residual))
    image = tree.negative(tree.add(grad, residual))
    predicted = tree.vdot(grad, scaled) + 0.5 * tree.vdot(scaled, image)
    finite = jnp.isfinite(size) & tree.all_finite((scaled, image))
    step, length = _over(scaled, root), state.unit * tree.norm(scaled)
    left = jax.tree.map(jnp.multiply, residual, root)
    outcome = make_step(
        step,
        predicted,
        Report(
            iterations=final.at.count,
            products=final.at.count,
            residual=tree.norm(left) / _nonzero(tree.norm(quadratic.grad)),
            stopped=jnp.where(finite, final.stopped, Stop.NONFINITE.value),
        ),
        length=length,
    )
    new = jax.tree.map(jnp.sqrt, final.curvature)
    across = tree.norm(jax.tree.map(jnp.multiply, step, new))
    return outcome, Region(
        tree.norm(_over(quadratic.grad, new)).astype(state.size.dtype),
        final.curvature,
        jnp.where(across > 0, length / _nonzero(across), state.unit).astype(state.unit.dtype),
        final.known,
    )


def _tolerance(size: jax.Array, state: Region, forcing: float) -> jax.Array:
    """The required relative residual, for a gradient of this size."""
    falling = jnp.where(
        jnp.isfinite(state.size),
        0.9 * (size / jnp.where(state.size > 0, state.size, 1)) ** 2,
        1,
    )
    # A tolerance below ε^(2/3) would not improve the step.
    return jnp.clip(falling, jnp.finfo(size.dtype).eps ** (2 / 3), forcing)


def _over(x: Params, root: Params) -> Params:
    return jax.tree.map(lambda a, d: a / d, x, root)


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1)


def _iterate(
    product: Callable, grad: Params, root: Params, state: Region, radius, target, max_steps: int
) -> _Carry:
    """CG in the coordinates ``y = D d``, with ``product`` and ``grad`` in these coordinates."""
    itself = lambda residual: residual
    first = begin(grad, itself)
    radius = radius.astype(first.rz.dtype)

    def going(c: _Carry) -> jax.Array:
        return (c.stopped < 0) & (c.at.count < max_steps)

    def iterate(c: _Carry) -> _Carry:
        edge = _to_boundary(c.at.step, c.at.direction, radius)
        outside = lambda ray: ~(ray.length < edge)
        # To a finite boundary; in an unbounded region the curvature gives the length.
        ends = lambda ray: jnp.isfinite(edge) & (ray.negative | outside(ray))
        reach = lambda ray: jnp.where(ends(ray), edge, ray.length)
        at, ray = advance(c.at, product, itself, reach)
        stopped = jnp.where(jnp.sqrt(at.rz) <= target, Stop.SOLVED.value, -1)
        stopped = jnp.where(outside(ray), Stop.BOUNDARY.value, stopped)
        stopped = jnp.where(ray.negative, Stop.NEGATIVE_CURVATURE.value, stopped)
        # Before the first pair, D is the identity: start from the curvature along the direction.
        length = _nonzero(tree.norm(ray.direction))
        alone = ray.bend / length / length
        begun = jax.tree.map(lambda d: jnp.where(c.known, d, alone.astype(d.dtype)), c.curvature)
        along = _over(ray.direction, root)
        across = jax.tree.map(jnp.multiply, ray.image, root)
        learnt = _learnt(begun, along, across, ray.bend)
        curvature = tree.where(ray.negative, c.curvature, learnt)
        return _Carry(at, stopped.astype(jnp.int32), curvature, c.known | ~ray.negative)

    start = jnp.where(first.rz > 0, -1, Stop.SOLVED.value).astype(jnp.int32)
    initial = _Carry(first, start, state.curvature, state.known)
    final = jax.lax.while_loop(going, iterate, initial)
    return final._replace(stopped=jnp.where(final.stopped < 0, Stop.MAX_STEPS.value, final.stopped))


def _learnt(diagonal: Params, u: Params, v: Params, bend: jax.Array) -> Params:
    """``dᵢ + vᵢ²/uᵀv − (dᵢuᵢ)²/Σ dⱼuⱼ²``: the diagonal of the BFGS update of ``diag(d)`` by a pair
    with ``uᵀv = bend > 0``."""
    weighted = jax.tree.map(jnp.multiply, diagonal, u)
    total = tree.vdot(u, weighted)
    eps = jnp.finfo(total.dtype).eps

    def leaf(d, w, y):
        new = (
            d + y * (y / _nonzero(bend)).astype(d.dtype) - w * (w / _nonzero(total)).astype(d.dtype)
        )
        return jnp.where(jnp.isfinite(new), jnp.maximum(new, eps * d), d)

    return jax.tree.map(leaf, diagonal, weighted, v)


def _to_boundary(step, direction, radius):
    """The ``τ ≥ 0`` with ``‖step + τ direction‖ = Δ``; infinite for an infinite Δ."""
    # In units of Δ and of the direction's length: their squares may under- or overflow.
    length = tree.norm(direction)
    length = jnp.where(length > 0, length, 1)
    s = jax.tree.map(lambda x: x / radius.astype(x.dtype), step)
    u = jax.tree.map(lambda x: x / length.astype(x.dtype), direction)
    b, c = tree.vdot(s, u), tree.vdot(s, s) - 1
    root = jnp.sqrt(jnp.maximum(b**2 - c, 0))
    # For each sign of b, the form without cancellation.
    tau = jnp.where(b > 0, -c / (b + root), root - b) * (radius / length)
    return jnp.where(jnp.isfinite(radius), jnp.maximum(tau, 0), jnp.inf)
