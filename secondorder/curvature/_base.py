"""The curvature protocol: an objective and parameters in, an operator out, with a state."""

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
      needs_value_fn: whether ``update`` needs the objective; False for gradients only.
      reads_scale: whether ``update`` takes the scalar of the trust policy as a fifth argument, the
        damping of stored inverses.
      without_jacobian: whether its operators give least-squares solvers their rows without a dense
        Jacobian.

    Example:
      >>> import secondorder as so
      >>> isinstance(so.exact(so.hessian), so.curvature.Curvature)
      True
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Operator, Any]]
    needs_value_fn: bool = True
    reads_scale: bool = False
    without_jacobian: bool = False

    def at(
        self, grads: Params, state: Any, params: Params, value_fn: Any, scale: Any
    ) -> tuple[Operator, Any]:
        """``update``, with the scalar of the trust policy if it reads one."""
        known = (scale,) if self.reads_scale else ()
        return self.update(grads, state, params, value_fn, *known)
