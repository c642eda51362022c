"""An optimizer is an Optax transformation with a search space, a price and a look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import optax

import secondorder as so
from experiments import cost
from experiments.problem import Problem, StepClass


@dataclass(frozen=True)
class Look:
    """How an optimizer is drawn, in every figure."""

    colour: str
    dashes: Any
    marker: str | tuple[int, int, float]


@dataclass(frozen=True)
class Search:
    """The coarse grid of a hyperparameter, from which the search goes on; log-spaced."""

    grid: tuple[float, ...]
    in_step_units: bool = False
    """Whether the grid is relative to the problem's `step_unit`: for steps along the gradient."""

    def values(self, problem: Problem) -> tuple[float, ...]:
        unit = problem.step_unit if self.in_step_units else 1.0
        return tuple(unit * value for value in self.grid)


@dataclass(frozen=True)
class Optimizer:
    """An Optax transformation with a search space."""

    name: str
    label: str
    build: Callable[..., optax.GradientTransformationExtraArgs]
    """Takes the hyperparameters named in `search`, traced: one compilation serves all trials; and
    an `example` of the objective, where it `sees_layers`."""
    step_class: StepClass
    step_cost: cost.StepCost
    look: Look
    search: Mapping[str, Search] = field(default_factory=dict)
    """What is tuned, and where. Empty: run at its defaults."""
    diagnose: Callable[[Any], Mapping[str, jax.Array]] = so.diagnostics
    scale: Literal["damping", "radius"] = "damping"
    """What its diagnostics' `scale` is: λ or Δ."""
    curvature_part: int = 1
    """Its curvature is of every example with an index divisible by this."""
    baseline: bool = False
    reuses_gradient: bool = False
    """Whether the state holds value and gradient of the new point, as a line search leaves them."""
    sees_layers: bool = False
    """Whether it is built for the layers of a model."""
    needs: Callable[[Problem], str] = lambda problem: ""
    """Why it cannot do anything of its own on a problem; empty where it can."""

    def built(
        self, objective: Any, hyperparameters: Mapping[str, Any]
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation, for problems whose objective is like this one."""
        seen = {"example": objective} if self.sees_layers else {}
        return self.build(**seen, **hyperparameters)

    def left_out(self, problem: Problem) -> str:
        """Why it is not run on a problem; empty where it is."""
        for name in (self.name, self.step_class):
            if name in problem.left_out:
                return problem.left_out[name]
        return self.needs(problem)
