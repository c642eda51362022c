"""Learning rate and momentum from the exact quadratic model: its minimum over two directions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, nothing_prepared, prepares
from secondorder.step import Stop, make_step
from secondorder.tree import Params


@settings.checked()
def optimal_scaling(solver: Solver) -> Solver:
    """``d = αΔ + μδ``: ``Δ`` the solver's step, ``δ`` the last one taken, α and μ at the minimum of
    ``m(d) + ½ λ ‖d‖²``.

        [Δ·CΔ  Δ·Cδ] [α]     [g·Δ]
        [Δ·Cδ  δ·Cδ] [μ] = − [g·δ],        C = B + λ I

    ``B`` is multiplied exactly, so the length of a step that an approximate inverse has proposed
    comes from the curvature itself: there is no learning rate, and a momentum that would not help
    is not used. Two products with half of B (``B = JᵀMJ``: two tangents) are paid.

    Of a solver that reads a radius, λ is 0, and a step beyond the radius is cut there.

    Args:
      solver: whose steps are proposed, such as ``apply_inverse()``.

    Example:
      >>> import secondorder as so
      >>> solver = so.solvers.optimal_scaling(so.solvers.apply_inverse())

    Source: Martens and Grosse (2015), sections 6.4 and 7.
    """

    def init(params: Params) -> Any:
        return tree.accumulator(tree.zeros_like(params)), solver.init(params)

    def prepare(quadratic: Quadratic, memory: Any):
        factors, inner, cost = solver.prepare(quadratic, memory[1])
        return factors, (memory[0], inner), cost

    within_radius = solver.reads == "radius"

    def solve(quadratic: Quadratic, factors: Any, memory: Any, scale: jax.Array):
        last, inner = memory
        damping = jnp.zeros_like(scale) if within_radius else scale
        found, after = solver.solve(quadratic, factors, inner, scale)
        # Of entries up to one, so that no product of a short step with itself underflows.
        new, old = _unit(found.direction), _unit(last)
        curved = quadratic.curvature.gram(new, old)
        aa, ab, bb = (tree.vdot(*pair) for pair in ((new, new), (new, old), (old, old)))
        ga, gb = (tree.vdot(quadratic.grad, v) for v in (new, old))
        square = jnp.stack([jnp.stack([aa, ab]), jnp.stack([ab, bb])])
        alpha, mu = _minimum(curved + damping * square, ga, gb)
        weights = jnp.stack([alpha, mu])
        bend = jnp.sum(weights * jnp.sum(curved * weights[None], axis=1))
        step = jax.tree.map(lambda a, b: (alpha * a + mu * b).astype(a.dtype), new, old)
        slope, part = alpha * ga + mu * gb, 1
        if within_radius:
            length = solver.measure(factors, inner, step)
            radius = solver.radius(factors, inner, scale)
            part = jnp.minimum(1, radius / jnp.where(length > 0, length, 1)).astype(length.dtype)
            step, length = tree.scale(part, step), part * length
        else:
            length = jnp.sum(weights * jnp.sum(square * weights[None], axis=1))
            length = jnp.sqrt(jnp.maximum(length, 0))
        predicted = part * (slope + 0.5 * part * bend)
        sound = jnp.isfinite(predicted)
        report = found.report._replace(
            products=found.report.products + 1,  # two halves
            residual=jnp.inf,
            dimension=0,
            order=1,
            full=False,
            stopped=jnp.where(sound, found.report.stopped, Stop.NONFINITE.value),
        )
        outcome = make_step(
            step,
            predicted,
            report,
            length=length,
        )
        return outcome, (step, after)

    measure = lambda factors, memory, d: solver.measure(factors, memory[1], d)
    norm = lambda factors, memory, d: tree.norm(d)
    return solver._replace(
        init=init,
        solve=solve,
        prepare=prepare if prepares(solver) else nothing_prepared,
        remember=lambda memory, taken: (taken, solver.remember(memory[1], taken)),
        measure=measure if within_radius else norm,
        radius=lambda factors, memory, scale: solver.radius(factors, memory[1], scale),
    )


def _unit(v: Params) -> Params:
    peak = tree.max_abs(v)
    return tree.scale(1 / jnp.where(peak > 0, peak, 1), v)


def _minimum(matrix: jax.Array, ga: jax.Array, gb: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``−C⁻¹ g`` in two dimensions; along the first alone where the two are nearly parallel."""
    (aa, ab), (_, bb) = matrix
    eps = jnp.finfo(aa.dtype).eps
    det = aa * bb - ab * ab
    apart = (aa > 0) & (bb > 0) & (det > 100 * eps * aa * bb)
    det = jnp.where(apart, det, 1)
    # Without curvature along it there is no length to suggest: the solver's own direction is kept.
    alone = -ga / jnp.where(aa != 0, jnp.abs(aa), 1)
    alpha = jnp.where(apart, (ab * gb - bb * ga) / det, alone)
    return alpha, jnp.where(apart, (ab * ga - aa * gb) / det, 0)
