"""Solver of a block-diagonal curvature: any solver, applied to each layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.operators._block_diagonal import Path, by_module, groups_of, joined, of_group
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Cost, Solver
from secondorder.step import Report, make_step
from secondorder.tree import Params


@settings.checked()
def block_diagonal(solver: Solver, layer_of: Callable[[Path], Hashable] = by_module) -> Solver:
    """``(B_ll + λ I) d_l = −g_l`` for each layer l, solved and stopped separately.

    The model ignores curvature between layers. Where the layers interact, each block corrects the
    whole error, so the sum overshoots. ``optimal_scaling(block_diagonal(…))`` on
    ``preconditioned(exact(ggn), block_diagonal())`` takes its length from the whole matrix.

    Args:
      solver: a solver with a damping: ``cg()``, ``sample_space()``, ``direct()``,
        ``prox_linear()``.
      layer_of: as in ``curvature.block_diagonal``.

    Raises:
      TypeError: at update, a curvature without layer blocks.
      ValueError: a solver without a damping; at update, layers that differ from the curvature's.

    Example:
      >>> import secondorder as so
      >>> solver = so.solvers.block_diagonal(so.solvers.cg(20))
    """
    if solver.reads != "damping":
        raise ValueError(
            "block_diagonal needs a solver that reads a damping, but this one reads a "
            f"{solver.reads}: a region's radius is of the whole step. Pass cg(), sample_space() or "
            "direct()."
        )

    def init(params: Params) -> Any:
        return tuple(solver.init(of_group(params, g)) for g in groups_of(params, layer_of))

    def models(quadratic: Quadratic) -> list[Quadratic]:
        grad = quadratic.grad
        groups, blocks = quadratic.curvature.layer_blocks()
        if groups != groups_of(grad, layer_of):
            raise ValueError(
                "block_diagonal and its curvature see different layers: give both the same "
                "layer_of."
            )
        parts = zip(groups, blocks, strict=True)
        return [Quadratic(of_group(grad, group), block) for group, block in parts]

    def prepare(quadratic: Quadratic, memories: tuple):
        found = map(solver.prepare, models(quadratic), memories)
        factors, memories, costs = zip(*found, strict=True)
        return factors, memories, Cost(*map(sum, zip(*costs, strict=True)))

    def solve(quadratic: Quadratic, factors: tuple, memories: tuple, damping: jax.Array):
        grad = quadratic.grad
        groups, _ = quadratic.curvature.layer_blocks()
        parts = zip(models(quadratic), factors, memories, strict=True)
        steps, memories = zip(*(solver.solve(*part, damping) for part in parts), strict=True)
        stacked = Report(*map(jnp.stack, zip(*(step.report for step in steps), strict=True)))
        outcome = make_step(
            tree.cast(joined([step.direction for step in steps], groups, grad), grad),
            jnp.sum(jnp.stack([step.predicted for step in steps])),
            Report(
                iterations=jnp.max(stacked.iterations),
                products=jnp.sum(stacked.products),
                jacobians=jnp.sum(stacked.jacobians),
                stopped=jnp.max(stacked.stopped),
            ),
        )
        return outcome, memories

    def remember(memories: tuple, taken: Params) -> tuple:
        own = (of_group(taken, group) for group in groups_of(taken, layer_of))
        return tuple(map(solver.remember, memories, own))

    return Solver(init, solve, prepare, remember)
