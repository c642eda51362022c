"""Conjugate gradients inside a trust region: Steihaug (1983) and Toint (1981)."""

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
    """What the solver learnt of the problem's units.

    Attributes:
      size: ``‖D⁻¹ g‖`` of the last accepted step; infinite before the first.
      curvature: ``D²``, an estimate of the curvature's diagonal.
      unit: what ``‖D d‖`` is multiplied by, so that the last step keeps its length as D changes.
      known: whether a product has shown any curvature yet.
    """

    size: jax.Array
    curvature: Params
    unit: jax.Array
    known: jax.Array


class _Carry(NamedTuple):
    at: Iterate  # in the coordinates D d
    stopped: jax.Array  # −1 while going
    curvature: Params  # as learnt so far
    known: jax.Array


@settings.checked(max_steps=settings.COUNT)
def steihaug(max_steps: int = 100, forcing: float = 0.5) -> Solver:
    """``min m(d)`` over ``‖D d‖ ≤ Δ`` by truncated conjugate gradients, preconditioned by ``D²``.

    Follows CG from zero and stops at the residual asked for, at the boundary, or along the first
    direction of non-positive curvature, which it follows to the boundary. Δ = ∞ (the start of
    ``trust.radius()``) is allowed: then a direction of negative curvature is followed as far as its
    curvature in magnitude suggests.

    ``D`` is one at first, and learns the units of the parameters from the products that are taken
    anyway: ``D²`` is the diagonal of the BFGS update by the pairs ``(u, B u)`` of CG's directions
    (Gilbert and Lemaréchal 1989). Where parameters differ in size by orders of magnitude, CG
    without it solves for the steepest few alone.

    The residual asked for tightens as the gradient falls, relative to the last one (Eisenstat and
    Walker 1996, choice 2, which makes the convergence superlinear): ``min(forcing, 0.9
    (‖D⁻¹g‖/‖D⁻¹g_last‖)²)``, never absolute.

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
        number = lambda x: jnp.full((), x, tree.dtype(params))
        ones = jax.tree.map(jnp.ones_like, tree.accumulator(tree.zeros_like(params)))
        return Region(number(jnp.inf), ones, number(1), jnp.asarray(False))

    def solve(
        quadratic: Quadratic, factors: tuple, state: Region, radius: jax.Array
    ) -> tuple[Step, Region]:
        del factors
        root = jax.tree.map(jnp.sqrt, state.curvature)
        grad = _over(tree.accumulator(quadratic.grad), root)
        size = tree.norm(grad)
        falling = jnp.where(
            jnp.isfinite(state.size),
            0.9 * (size / jnp.where(state.size > 0, state.size, 1)) ** 2,
            1,
        )
        # Below a third of the working precision's digits a tighter solve buys nothing.
        tolerance = jnp.clip(falling, jnp.finfo(size.dtype).eps ** (2 / 3), forcing)
        # Solved for a gradient of length one: squares of a tiny one would underflow.
        unit = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
        product = lambda v: _over(quadratic.curvature.mv(_over(v, root)), root)
        final = _iterate(
            product,
            tree.scale(1 / unit, grad),
            root,
            state,
            radius / state.unit / unit,
            tolerance,
            max_steps,
        )
        scaled, residual = (tree.scale(unit, x) for x in (final.at.step, final.at.residual))
        image = tree.negative(tree.add(grad, residual))
        predicted = tree.vdot(grad, scaled) + 0.5 * tree.vdot(scaled, image)
        finite = jnp.isfinite(size) & tree.all_finite((scaled, image))
        stopped = jnp.where(finite, final.stopped, Stop.NONFINITE.value)
        step, length = _over(scaled, root), state.unit * tree.norm(scaled)
        left = jax.tree.map(jnp.multiply, residual, root)
        outcome = make_step(
            step,
            predicted,
            Report(
                iterations=final.at.count,
                products=final.at.count,
                residual=tree.norm(left) / _nonzero(tree.norm(quadratic.grad)),
                stopped=stopped,
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

    def measure(factors: tuple, state: Region, direction: Params) -> jax.Array:
        del factors
        root = jax.tree.map(jnp.sqrt, state.curvature)
        return state.unit * tree.norm(jax.tree.map(jnp.multiply, direction, root))

    return Solver(init, solve, measure=measure, reads="radius")


def _over(x: Params, root: Params) -> Params:
    return jax.tree.map(lambda a, d: a / d, x, root)


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1)


def _iterate(
    product: Callable, grad: Params, root: Params, state: Region, radius, target, max_steps: int
) -> _Carry:
    """CG in the coordinates ``y = D d``; ``product`` and ``grad`` are of those."""
    itself = lambda residual: residual
    first = begin(grad, itself)
    radius = radius.astype(first.rz.dtype)

    def going(c: _Carry) -> jax.Array:
        return (c.stopped < 0) & (c.at.count < max_steps)

    def iterate(c: _Carry) -> _Carry:
        edge = _to_boundary(c.at.step, c.at.direction, radius)
        outside = lambda ray: ~(ray.length < edge)
        # To the boundary where there is one; an unbounded region has only the curvature's length.
        ends = lambda ray: jnp.isfinite(edge) & (ray.negative | outside(ray))
        reach = lambda ray: jnp.where(ends(ray), edge, ray.length)
        at, ray = advance(c.at, product, itself, reach)
        stopped = jnp.where(jnp.sqrt(at.rz) <= target, Stop.SOLVED.value, -1)
        stopped = jnp.where(outside(ray), Stop.BOUNDARY.value, stopped)
        stopped = jnp.where(ray.negative, Stop.NEGATIVE_CURVATURE.value, stopped)
        # Before the first pair D is one, and directions are those of the parameters.
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
    """The diagonal of the BFGS update of ``diag(d)`` by a pair with ``uᵀv = bend > 0``:
    ``dᵢ + vᵢ²/uᵀv − (dᵢuᵢ)²/Σ dⱼuⱼ²``."""
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
