"""A fit as it was called: the model, its settings, the data, and where the search begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder import tree
from secondorder.optimize._call import Options
from secondorder.optimize._least_squares import within_a_solve
from secondorder.optimize._observed import Data, Observed, observed
from secondorder.optimize._parameters import Layout
from secondorder.optimize._solution import Solution
from secondorder.tree import Params


class Task(NamedTuple):
    """What a program of a fit is compiled for."""

    model: Callable
    options: Options
    layout: Layout
    absolute_sigma: bool
    omit: bool


class Problem(NamedTuple):
    """A task with its data.

    Attributes:
      base: all parameters at the start, with the fixed ones.
      bounds: of all parameters.
    """

    task: Task
    data: Data
    base: Params
    bounds: Any

    def observed(self) -> Observed:
        """The residuals, as a function of all parameters."""
        return observed(self.task.model, self.data, self.task.omit)

    def whole(self, free: Params) -> Params:
        """All parameters, from the free ones."""
        return self.task.layout.whole(free, self.base)

    def free_bounds(self) -> tuple[Any, Any] | None:
        """The bounds of the free parameters."""
        layout, bounds = self.task.layout, self.bounds
        if layout.is_plain or not isinstance(bounds, tuple) or len(bounds) != 2:
            return bounds
        names = "the lower bound", "the upper bound"
        ends = zip(bounds, names, strict=True)
        return tuple(layout.free(tree.spread(end, self.base, name)) for end, name in ends)

    def search(self, residual: Callable, start: Params, bounds: Any, watch: Any = None) -> Solution:
        """The least squares of a residual from a start, by the settings of the task."""
        return within_a_solve(residual, self.task.options, start, (), bounds, watch)


def check_ties(layout: Layout, bounds: Any) -> None:
    """Raise an error for bounds of a tied parameter, which would not be kept."""
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        return
    for tie in layout.ties:
        for end in bounds:
            if jax.tree.structure(end) == jax.tree.structure(0) and np.ndim(end) == 0:
                continue  # one number for all, and so for the free ones
            value = jnp.asarray(jax.tree.leaves(end)[tie.place.leaf])[tie.place.entry or ...]
            if not isinstance(value, Tracer) and np.any(np.isfinite(value)):
                raise ValueError(
                    f"bounds limit {tie.name}, which is tied to other parameters. Bound those."
                )
