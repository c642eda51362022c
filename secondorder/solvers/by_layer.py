"""Each layer's own system, by any solver: the diagonal blocks of a curvature."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators.base import Operator, Preconditioned
from secondorder.operators.layers import LayerBlocks, Path, beside, groups_of, joined, of_group
from secondorder.quadratic import Quadratic
from secondorder.solvers.base import Cost, Solver, make_step
from secondorder.tree import Params


def by_layer(solver: Solver, layer_of: Callable[[Path], Hashable] = beside) -> Solver:
    """``(B_ll + λ I) d_l = −g_l`` for each layer l, with lengths and stopping tests of its own.

    Of a model that has no curvature between layers: where there is, all of them answer the same
    error, and their sum goes too far. ``momentum(by_layer(…))`` on
    ``preconditioned(exact(ggn), layer_blocks())`` takes its length from the whole matrix.

    Args:
      solver: that reads a damping: ``cg()``, ``dual()``, ``direct()``, ``prox_linear()``.
      layer_of: as in ``curvature.layer_blocks``.

    Raises:
      TypeError: at update, a curvature that is not by layers.
      ValueError: a solver that does not read a damping; at update, other layers than the
        curvature's.

    Example:
      >>> import secondorder as so
      >>> solver = so.solvers.by_layer(so.solvers.cg(20))
    """
    if solver.reads != "damping":
        raise ValueError(
            f"by_layer needs a solver that reads a damping, but this one reads a {solver.reads}: "
            "a region's radius is of the whole step. Pass cg(), dual() or direct()."
        )

    def init(params: Params) -> Any:
        return tuple(solver.init(of_group(params, g)) for g in groups_of(params, layer_of))

    def models(quadratic: Quadratic) -> list[Quadratic]:
        grad, op = quadratic.grad, _layers_of(quadratic.curvature)
        if op.groups != groups_of(grad, layer_of):
            raise ValueError(
                "by_layer and its curvature see different layers: give both the same layer_of."
            )
        parts = zip(op.groups, op.blocks, strict=True)
        return [Quadratic(of_group(grad, group), block) for group, block in parts]

    def prepare(quadratic: Quadratic, memories: tuple):
        found = map(solver.prepare, models(quadratic), memories)
        factors, memories, costs = zip(*found, strict=True)
        return factors, memories, Cost(*map(sum, zip(*costs, strict=True)))

    def solve(quadratic: Quadratic, factors: tuple, memories: tuple, damping: jax.Array):
        grad, op = quadratic.grad, _layers_of(quadratic.curvature)
        parts = zip(models(quadratic), factors, memories, strict=True)
        steps, memories = zip(*(solver.solve(*part, damping) for part in parts), strict=True)
        stacked = lambda name: jnp.stack([getattr(step, name) for step in steps])
        outcome = make_step(
            tree.cast(joined([step.direction for step in steps], op.groups, grad), grad),
            jnp.sum(stacked("predicted")),
            iterations=jnp.max(stacked("iterations")),
            products=jnp.sum(stacked("products")),
            jacobians=jnp.sum(stacked("jacobians")),
            stopped=jnp.max(stacked("stopped")),
        )
        return outcome, memories

    def remember(memories: tuple, taken: Params) -> tuple:
        own = (of_group(taken, group) for group in groups_of(taken, layer_of))
        return tuple(map(solver.remember, memories, own))

    return Solver(init, solve, prepare, remember)


def _layers_of(op: Operator) -> LayerBlocks:
    op = op.approximation if isinstance(op, Preconditioned) else op
    if isinstance(op, LayerBlocks):
        return op
    raise TypeError(
        f"The by_layer() solver needs the blocks of layers, but the curvature is a "
        f"{type(op).__name__}. Use curvature.layer_blocks(), alone or within "
        "curvature.preconditioned(exact(ggn), curvature.layer_blocks())."
    )
