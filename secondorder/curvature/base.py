"""WHAT curvature: from a ``value_fn`` at some parameters to an operator, with memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from secondorder.operators.base import Operator
from secondorder.tree import Params


class Curvature(NamedTuple):
    """A source of curvature.

    Attributes:
      init: ``params -> state``; works on ``ShapeDtypeStruct`` leaves.
      update: ``(grads, state, params, value_fn) -> (Operator, state)``.
      needs_value_fn: whether ``update`` looks at the objective, or at gradients alone.
    """

    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params, Callable], tuple[Operator, Any]]
    needs_value_fn: bool = True
