"""WHAT curvature: from a ``value_fn`` at some parameters to an operator, with memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from secondorder.operators._base import Operator
from secondorder.tree import Params


class Curvature(NamedTuple):
    """A source of curvature.

    Attributes:
      init: ``params -> state``; works on ``ShapeDtypeStruct`` leaves.
      update: ``(grads, state, params, value_fn) -> (Operator, state)``.
      needs_value_fn: whether ``update`` takes the objective, or gradients alone.
      reads_scale: whether ``update`` takes the trust's scalar as a fifth argument: damping that
        goes into inverses which are kept.
      without_jacobian: whether its operators serve solvers on rows without a dense Jacobian.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Operator, Any]]
    needs_value_fn: bool = True
    reads_scale: bool = False
    without_jacobian: bool = False

    def at(
        self, grads: Params, state: Any, params: Params, value_fn: Any, scale: Any
    ) -> tuple[Operator, Any]:
        """``update``, with the trust's scalar where it reads it."""
        known = (scale,) if self.reads_scale else ()
        return self.update(grads, state, params, value_fn, *known)
