"""Conjugate gradients inside a trust region: Steihaug (1983) and Toint (1981)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.quadratic import Quadratic
from secondorder.solvers.base import Solver, Step, Stop, make_step
from secondorder.tree import Params


class _Carry(NamedTuple):
    step: Params
    image: Params  # B step
    residual: Params  # −g − B step
    direction: Params
    rr: jax.Array
    iterations: jax.Array
    stopped: jax.Array  # −1 while going


def steihaug(max_steps: int = 100, forcing: float = 0.5) -> Solver:
    """``min m(d)`` over ``‖d‖ ≤ Δ`` by truncated conjugate gradients.

    Follows CG from zero and stops at the residual asked for, at the boundary, or along the first
    direction of non-positive curvature, which it follows to the boundary. Δ = ∞ (the start of
    ``trust.radius()``) is allowed: then a direction of negative curvature is followed as far as its
    curvature in magnitude suggests.

    The residual asked for tightens as the gradient falls, relative to the last one (Eisenstat and
    Walker 1996, choice 2, which makes the convergence superlinear): ``min(forcing, 0.9
    (‖g‖/‖g_last‖)²)``, never absolute.

    Args:
      max_steps: at most this many products a step.
      forcing: the largest relative residual ever accepted; also the first one.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.exact(so.hessian), so.solvers.steihaug(), so.trust.radius())

    Source: Toint (1981); Steihaug (1983); Nocedal and Wright (2006), algorithm 7.2.
    """

    def init(params):
        return jnp.full((), jnp.inf, tree.dtype(params))  # ‖g‖ of the last accepted step

    def update(quadratic: Quadratic, state, radius: jax.Array) -> tuple[Step, jax.Array]:
        size = tree.norm(quadratic.grad)
        falling = jnp.where(
            jnp.isfinite(state), 0.9 * (size / jnp.where(state > 0, state, 1)) ** 2, 1
        )
        # Below a third of the working precision's digits a tighter solve buys nothing.
        tolerance = jnp.clip(falling, jnp.finfo(size.dtype).eps ** (2 / 3), forcing)
        # Solved for a gradient of length one: squares of a tiny one would underflow.
        unit = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
        scaled = quadratic._replace(grad=tree.scale(1 / unit, quadratic.grad))
        final = _iterate(scaled, radius / unit, tolerance, max_steps)
        step, image = tree.scale(unit, final.step), tree.scale(unit, final.image)
        predicted = tree.vdot(quadratic.grad, step) + 0.5 * tree.vdot(step, image)
        finite = jnp.isfinite(size) & tree.all_finite((step, image))
        stopped = jnp.where(finite, final.stopped, Stop.NONFINITE.value)
        length = tree.norm(step)
        outcome = make_step(
            step,
            predicted,
            length=length,
            boundary=length >= 0.99 * radius,
            iterations=final.iterations,
            products=final.iterations,
            residual=jnp.sqrt(final.rr),
            stopped=stopped,
        )
        return outcome, size.astype(state.dtype)

    return Solver(init=init, update=update, reads="radius")


def _iterate(quadratic: Quadratic, radius, target, max_steps) -> _Carry:
    grad = quadratic.grad
    zeros = tree.zeros_like(grad)
    residual = tree.negative(grad)
    rr = tree.vdot(residual, residual)
    eps = jnp.finfo(rr.dtype).eps
    radius = radius.astype(rr.dtype)

    def going(c: _Carry) -> jax.Array:
        return (c.stopped < 0) & (c.iterations < max_steps)

    def iterate(c: _Carry) -> _Carry:
        image = quadratic.curvature.mv(c.direction)
        bend = tree.vdot(c.direction, image)
        length = tree.norm(c.direction)
        rounding = eps * length * tree.norm(image)
        negative = ~(bend > rounding)
        # Flat to working precision: there is no length to suggest, so the step is the direction.
        flat = jnp.abs(bend) <= rounding
        alpha = jnp.where(flat, 1, c.rr / jnp.where(flat, 1, jnp.abs(bend)))
        reach = _to_boundary(c.step, c.direction, radius)
        outside = ~(alpha < reach)
        # To the boundary where there is one; an unbounded region has only the curvature's length.
        alpha = jnp.where(jnp.isfinite(reach) & (negative | outside), reach, alpha)
        step = tree.axpy(alpha, c.direction, c.step)
        total = tree.axpy(alpha, image, c.image)
        residual = tree.axpy(-alpha, image, c.residual)
        rr = tree.vdot(residual, residual)
        direction = tree.axpy(rr / jnp.where(c.rr > 0, c.rr, 1), c.direction, residual)
        stopped = jnp.where(jnp.sqrt(rr) <= target, Stop.SOLVED.value, -1)
        stopped = jnp.where(outside, Stop.BOUNDARY.value, stopped)
        stopped = jnp.where(negative, Stop.NEGATIVE_CURVATURE.value, stopped)
        return _Carry(
            step, total, residual, direction, rr, c.iterations + 1, stopped.astype(jnp.int32)
        )

    start = jnp.where(rr > 0, -1, Stop.SOLVED.value).astype(jnp.int32)
    count = jnp.zeros((), jnp.int32)
    initial = _Carry(zeros, zeros, residual, residual, rr, count, start)
    final = jax.lax.while_loop(going, iterate, initial)
    return final._replace(stopped=jnp.where(final.stopped < 0, Stop.MAX_STEPS.value, final.stopped))


def _to_boundary(step, direction, radius):
    """The ``τ ≥ 0`` with ``‖step + τ direction‖ = Δ``; infinite where Δ is."""
    # In units of Δ and of the direction's length, whose squares may under- or overflow.
    length = tree.norm(direction)
    length = jnp.where(length > 0, length, 1)
    s = jax.tree.map(lambda x: x / radius.astype(x.dtype), step)
    u = jax.tree.map(lambda x: x / length.astype(x.dtype), direction)
    b, c = tree.vdot(s, u), tree.vdot(s, s) - 1
    root = jnp.sqrt(jnp.maximum(b**2 - c, 0))
    # The form without cancellation for either sign of b.
    tau = jnp.where(b > 0, -c / (b + root), root - b) * (radius / length)
    return jnp.where(jnp.isfinite(radius), jnp.maximum(tau, 0), jnp.inf)
