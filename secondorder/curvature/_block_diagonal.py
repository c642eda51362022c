"""Block-diagonal curvature: one block for each layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from secondorder import settings
from secondorder.curvature._base import Curvature
from secondorder.objectives._objective import restrict
from secondorder.operators import ggn
from secondorder.operators._base import Operator
from secondorder.operators._block_diagonal import (
    BlockDiagonal,
    Path,
    by_module,
    groups_of,
    of_group,
)


@settings.checked()
def block_diagonal(
    operator: Callable[..., Operator] = ggn, layer_of: Callable[[Path], Hashable] = by_module
) -> Curvature:
    """``⊕ B_ll``: for each layer l, the curvature with all other parameters fixed.

    A product with a block runs through the model from its layer to the output and back. For many
    layers of one size that is on average a quarter of a product with the whole matrix. For
    ``solvers.block_diagonal(…)``; no block is formed or stored.

    Args:
      operator: ``ggn``, ``hessian``, ``empirical_fisher`` or any function with the same arguments.
      layer_of: path of a leaf in the tree of parameters ↦ name of its layer. By default leaves with
        the same parent are one layer, such as kernel and bias; ``operators.by_leaf`` makes each
        leaf a layer.

    Example:
      >>> import secondorder as so
      >>> by_layer = so.solvers.block_diagonal(so.solvers.cg())
      >>> tx = so.scale_by_curvature(so.curvature.block_diagonal(), by_layer, so.trust.damping())
    """

    def update(grads, state, params, value_fn) -> tuple[Operator, tuple]:
        del grads
        objective = restrict(value_fn, params)
        groups = groups_of(params, layer_of)
        blocks = [operator(objective, of_group(params, group)) for group in groups]
        return BlockDiagonal(groups, blocks), state

    return Curvature(lambda params: (), update)
