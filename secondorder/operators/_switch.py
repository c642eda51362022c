"""A curvature operator that is one of two, chosen at run time."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from secondorder.operators._base import Operator
from secondorder.tree import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Switch(Operator):
    """``A`` if the flag is set, else ``B``; only the chosen one is computed."""

    flag: jax.Array
    first: Operator
    second: Operator

    def mv(self, v: Params) -> Params:
        return jax.lax.cond(self.flag, self.first.mv, self.second.mv, v)

    def matrix(self, like: Params) -> jax.Array:
        return jax.lax.cond(
            self.flag, lambda: self.first.matrix(like), lambda: self.second.matrix(like)
        )

    def bends(self, order: int) -> bool:
        return self.second.bends(order)

    def rows(self, formed: bool = True, matrix: jax.Array | None = None) -> Any:
        return self.second.rows(formed, matrix)

    def gauss_newton(self) -> Any:
        return self.second.gauss_newton()
