"""Curvature restricted to each layer: the diagonal blocks of a Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from secondorder.curvature.base import Curvature
from secondorder.objective import restrict
from secondorder.operators import ggn
from secondorder.operators.base import Operator
from secondorder.operators.layers import LayerBlocks, Path, beside, groups_of, of_group


def layer_blocks(
    operator: Callable[..., Operator] = ggn, layer_of: Callable[[Path], Hashable] = beside
) -> Curvature:
    """``⊕ B_ll``: for each layer l the curvature with all other parameters held where they are.

    A block's product runs through the model from its layer on, forward and back: about a quarter
    of a product with the whole matrix, as a mean over many layers of one size. For
    ``solvers.by_layer(…)``; nothing of a block is formed or kept.

    Args:
      operator: ``ggn``, ``hessian``, ``empirical_fisher`` or any function of that shape.
      layer_of: a leaf's path in the tree of parameters ↦ the name of its layer. By default leaves
        that lie beside one another are one, as kernel and bias do;
        ``operators.apart`` makes each leaf one.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.curvature.layer_blocks(), so.solvers.by_layer(so.solvers.cg()), so.trust.damping())
    """

    def update(grads, state, params, value_fn) -> tuple[Operator, tuple]:
        del grads
        objective = restrict(value_fn, params)
        groups = groups_of(params, layer_of)
        blocks = [operator(objective, of_group(params, group)) for group in groups]
        return LayerBlocks(groups, blocks), state

    return Curvature(lambda params: (), update)
