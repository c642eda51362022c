"""A fit as it was called: the model, its settings, the data, and where the search begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder.optimize._bounds import Box, box_of
from secondorder.optimize._call import Options
from secondorder.optimize._least_squares import within_a_solve
from secondorder.optimize._observed import Data, Observed, observed
from secondorder.optimize._parameters import Layout
from secondorder.optimize._solution import Solution
from secondorder.optimize._watch import Watch
from secondorder.tree import Params
from secondorder.tree._checks import is_single


class Task(NamedTuple):
    """What a program of a fit is compiled for."""

    model: Callable
    options: Options
    layout: Layout
    absolute_sigma: bool
    omit: bool


class Regression(NamedTuple):
    """A regression: a task with its data.

    Attributes:
      base: all parameters at the start, with the fixed ones.
      bounds: of all parameters.
    """

    task: Task
    data: Data
    base: Params
    bounds: Box | None

    def observed(self) -> Observed:
        """The residuals, as a function of all parameters."""
        return observed(self.task.model, self.data, self.task.omit)

    def whole(self, free: Params) -> Params:
        """All parameters, from the free ones."""
        return self.task.layout.whole(free, self.base)

    def free_bounds(self) -> Box | None:
        """The bounds of the free parameters."""
        layout = self.task.layout
        if layout.is_plain or self.bounds is None:
            return self.bounds
        lower, upper = box_of(self.bounds, self.base)
        return layout.free(lower), layout.free(upper)

    def search(
        self, residual: Callable, start: Params, bounds: Box | None, watch: Watch = None
    ) -> Solution:
        """The least squares of a residual from a start, by the settings of the task."""
        return within_a_solve(residual, self.task.options, start, (), bounds, watch)


def check_ties(layout: Layout, bounds: Box | None) -> None:
    """Raise an error for bounds of a tied parameter, which would not be kept."""
    if bounds is None:
        return
    for tie in layout.ties:
        for end in bounds:
            if is_single(end):
                continue  # it is the bound of the free ones too
            value = jnp.asarray(jax.tree.leaves(end)[tie.place.leaf])[tie.place.entry or ...]
            if not isinstance(value, Tracer) and np.any(np.isfinite(value)):
                raise ValueError(
                    f"bounds limit {tie.name}, which is tied to other parameters. Bound those."
                )
