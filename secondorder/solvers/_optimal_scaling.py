"""Optimal learning rate and momentum: the minimum of the quadratic model over two directions."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, nothing_prepared, prepares
from secondorder.step import Stop, make_step
from secondorder.tree import Params


@settings.checked()
def optimal_scaling(solver: Solver) -> Solver:
    """``d = αΔ + μδ``, ``Δ`` the solver's step, ``δ`` the last step; α and μ minimise
    ``m(d) + ½ λ ‖d‖²``.

        [Δ·CΔ  Δ·Cδ] [α]     [g·Δ]
        [Δ·Cδ  δ·Cδ] [μ] = − [g·δ],        C = B + λ I

    Products with ``B`` are exact, so the length of a step from an approximate inverse comes from
    the curvature itself: there is no learning rate, and momentum is used only where it helps. The
    cost is two products with half of B (``B = JᵀMJ``: two tangents).

    For a solver with a radius, λ is 0, and a longer step is cut at the radius.

    Args:
      solver: source of ``Δ``, such as ``apply_inverse()``.

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
        best = _combined(quadratic, found.direction, last, damping)
        step, length, part = best.step, best.length, 1
        if within_radius:
            length = solver.measure(factors, inner, step)
            part = jnp.minimum(1, scale / jnp.where(length > 0, length, 1)).astype(length.dtype)
            step, length = tree.scale(part, step), part * length
        predicted = part * (best.slope + 0.5 * part * best.bend)
        sound = jnp.isfinite(predicted)
        report = found.report._replace(
            products=found.report.products + 1,  # two halves
            residual=jnp.inf,
            dimension=0,
            order=1,
            full=False,
            stopped=jnp.where(sound, found.report.stopped, Stop.NONFINITE.value),
        )
        return make_step(step, predicted, report, length=length), (step, after)

    measure = lambda factors, memory, d: solver.measure(factors, memory[1], d)
    norm = lambda factors, memory, d: tree.norm(d)
    return solver._replace(
        init=init,
        solve=solve,
        prepare=prepare if prepares(solver) else nothing_prepared,
        remember=lambda memory, taken: (taken, solver.remember(memory[1], taken)),
        measure=measure if within_radius else norm,
    )


class _Combined(NamedTuple):
    """The best combination ``d`` of two directions.

    Attributes:
      step: ``d``.
      slope, bend: ``g·d`` and ``d·Bd``.
      length: ``‖d‖``.
    """

    step: Params
    slope: jax.Array
    bend: jax.Array
    length: jax.Array


def _combined(
    quadratic: Quadratic, direction: Params, last: Params, damping: jax.Array
) -> _Combined:
    """The minimum of ``m(d) + ½ λ ‖d‖²`` over ``d = αΔ + μδ``."""
    # Scaled to a largest entry of one: the square of a short step would underflow.
    new, old = _unit(direction), _unit(last)
    curved = quadratic.curvature.gram(new, old)
    aa, ab, bb = (tree.vdot(*pair) for pair in ((new, new), (new, old), (old, old)))
    ga, gb = (tree.vdot(quadratic.grad, v) for v in (new, old))
    square = jnp.stack([jnp.stack([aa, ab]), jnp.stack([ab, bb])])
    alpha, mu = _minimum(curved + damping * square, ga, gb)
    weights = jnp.stack([alpha, mu])
    form = lambda matrix: jnp.sum(weights * jnp.sum(matrix * weights[None], axis=1))
    step = jax.tree.map(lambda a, b: (alpha * a + mu * b).astype(a.dtype), new, old)
    length = jnp.sqrt(jnp.maximum(form(square), 0))
    return _Combined(step, alpha * ga + mu * gb, form(curved), length)


def _unit(v: Params) -> Params:
    peak = tree.max_abs(v)
    return tree.scale(1 / jnp.where(peak > 0, peak, 1), v)


def _minimum(matrix: jax.Array, ga: jax.Array, gb: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``−C⁻¹ g`` in two dimensions; along the first only, where both are nearly parallel."""
    (aa, ab), (_, bb) = matrix
    eps = jnp.finfo(aa.dtype).eps
    det = aa * bb - ab * ab
    apart = (aa > 0) & (bb > 0) & (det > 100 * eps * aa * bb)
    det = jnp.where(apart, det, 1)
    # Zero curvature gives no length: divide by one, which keeps the solver's direction.
    alone = -ga / jnp.where(aa != 0, jnp.abs(aa), 1)
    alpha = jnp.where(apart, (ab * gb - bb * ga) / det, alone)
    return alpha, jnp.where(apart, (ab * ga - aa * gb) / det, 0)
