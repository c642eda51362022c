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
      reads_scale: whether ``update`` takes the trust's scalar as a fifth argument: damping that
        goes into inverses which are kept.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Operator, Any]]
    needs_value_fn: bool = True
    reads_scale: bool = False
