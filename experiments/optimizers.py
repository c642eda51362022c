"""The optimizers by name: any Optax transformation, with a search space, a price and a look."""

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
    marker: str


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
    """Takes the hyperparameters named in `search`, traced: one compilation serves all trials."""
    step_class: StepClass
    step_cost: cost.StepCost
    look: Look
    search: Mapping[str, Search] = field(default_factory=dict)
    """What is tuned, and where. Empty: run at its defaults."""
    diagnose: Callable[[Any], Mapping[str, jax.Array]] = so.diagnostics
    scale: Literal["damping", "radius"] = "damping"
    """What its diagnostics' `scale` is: λ or Δ."""
    curvature_part: int = 1
    """Its curvature is of every so-manieth example of a batch."""
    baseline: bool = False
    reuses_gradient: bool = False
    """Whether the state holds value and gradient of the new point, as a line search leaves them."""
    needs: Callable[[Problem], str] = lambda problem: ""
    """Why it cannot do anything of its own on a problem; empty where it can."""

    def left_out(self, problem: Problem) -> str:
        """Why it is not run on a problem; empty where it is."""
        for name in (self.name, self.step_class):
            if name in problem.left_out:
                return problem.left_out[name]
        return self.needs(problem)


def _decades(low: int, high: int) -> tuple[float, ...]:
    return tuple(10.0**exponent for exponent in range(low, high + 1))


def _no_diagnostics(state: Any) -> Mapping[str, jax.Array]:
    del state
    return {}


def _lbfgs_diagnostics(state: Any) -> Mapping[str, jax.Array]:
    return {"linesearch_steps": optax.tree.get(state, "num_linesearch_steps")}


def _loss_and_model(problem: Problem) -> str:
    """For methods of Gauss-Newton kind."""
    _, objective = problem.example()
    return "" if isinstance(objective, so.Objective) else "its objective is no loss after a model"


def _matrices(problem: Problem) -> str:
    """For methods that treat vectors as a diagonal method does."""
    shapes, _ = problem.example()
    several = any(leaf.ndim > 1 for leaf in jax.tree.leaves(shapes))
    return "" if several else "it has no matrix among its parameters"


# The colours here are Okabe and Ito's (and one purple), which stay apart for every common colour
# vision; dashes and marker say the same again, for print without colour.
_MAIN = (
    Optimizer(
        name="gradient-descent",
        label="Gradient descent, best fixed step",
        build=lambda learning_rate: so.gradient_descent(learning_rate),
        step_class="first-order",
        step_cost=cost.gradient_only,
        look=Look("#8C8C8C", (0, (1, 1.2)), "v"),
        search={"learning_rate": Search(_decades(-2, 2), in_step_units=True)},
        diagnose=_no_diagnostics,
        baseline=True,
    ),
    Optimizer(
        name="gradient-descent-line-search",
        label="Gradient descent, line search",
        build=lambda: so.gradient_descent(),
        step_class="first-order",
        step_cost=cost.line_searched(),
        look=Look("#000000", (0, (4, 1.5)), "^"),
        baseline=True,
        reuses_gradient=True,
    ),
    Optimizer(
        name="adam",
        label="Adam, best learning rate",
        build=lambda learning_rate: optax.with_extra_args_support(optax.adam(learning_rate)),
        step_class="first-order",
        step_cost=cost.gradient_only,
        look=Look("#E69F00", (0, (6, 1.5, 1, 1.5)), "s"),
        search={"learning_rate": Search(_decades(-4, 1))},
        diagnose=_no_diagnostics,
        baseline=True,
    ),
    Optimizer(
        name="lbfgs",
        label="L-BFGS (Optax)",
        build=lambda: optax.lbfgs(),
        step_class="quasi-newton",
        step_cost=cost.line_searched(),
        look=Look("#56B4E9", (0, (8, 2)), "D"),
        diagnose=_lbfgs_diagnostics,
        baseline=True,
        reuses_gradient=True,
    ),
    Optimizer(
        name="newton",
        label="Newton",
        build=lambda: so.newton(),
        step_class="dense",
        step_cost=cost.line_searched(cost.HESSIAN_PRODUCT),
        look=Look("#0072B2", "solid", "o"),
        reuses_gradient=True,
    ),
    Optimizer(
        name="gauss-newton",
        label="Gauss-Newton",
        build=lambda: so.gauss_newton(),
        step_class="dense",
        step_cost=cost.line_searched(cost.TANGENT),
        look=Look("#D55E00", (0, (3, 1)), "X"),
        reuses_gradient=True,
        needs=_loss_and_model,
    ),
    Optimizer(
        name="levenberg-marquardt",
        label="Levenberg-Marquardt",
        build=lambda: so.levenberg_marquardt(),
        step_class="dense",
        step_cost=cost.tried(cost.TANGENT),
        look=Look("#009E73", (0, (5, 1, 1, 1, 1, 1)), "P"),
        scale="radius",
        needs=_loss_and_model,
    ),
    Optimizer(
        name="newton-cg",
        label="Newton-CG",
        build=lambda: so.newton_cg(),
        step_class="matrix-free",
        step_cost=cost.tried(cost.HESSIAN_PRODUCT),
        look=Look("#CC79A7", "solid", "*"),
        scale="radius",
    ),
    Optimizer(
        name="hessian-free",
        label="Hessian-free",
        build=lambda: so.hessian_free(),
        step_class="matrix-free",
        step_cost=cost.tried(cost.GAUSS_NEWTON_PRODUCT),
        look=Look("#5D3A9B", (0, (2, 1)), "h"),
        needs=_loss_and_model,
    ),
)

# Nine colours are about as many as stay apart: these, too, are told by dashes and marker.
_FURTHER = (
    Optimizer(
        name="natural-gradient",
        label="Natural gradient",
        build=lambda: so.natural_gradient(),
        step_class="dense",
        step_cost=cost.searched(3),
        look=Look("#882255", (0, (6, 1)), ">"),
        needs=_loss_and_model,
    ),
    Optimizer(
        name="trust-region-newton",
        label="Newton, trust region",
        build=lambda: so.trust_region_newton(),
        step_class="dense",
        step_cost=cost.tried(cost.HESSIAN_PRODUCT),
        look=Look("#999933", (0, (4, 1, 1, 1)), "<"),
    ),
    Optimizer(
        name="bfgs",
        label="BFGS",
        build=lambda: so.bfgs(),
        step_class="quasi-newton",
        step_cost=cost.line_searched(),
        look=Look("#8B4513", "solid", "p"),
        reuses_gradient=True,
    ),
    Optimizer(
        name="limited-memory-bfgs",
        label="L-BFGS (ours)",
        build=lambda: so.lbfgs(),
        step_class="quasi-newton",
        step_cost=cost.line_searched(),
        look=Look("#00798C", (0, (8, 2, 1, 2)), "d"),
        reuses_gradient=True,
    ),
    Optimizer(
        name="soap",
        label="SOAP, best learning rate",
        build=lambda learning_rate: so.soap(learning_rate),
        step_class="first-order",
        step_cost=cost.gradient_only,
        look=Look("#E7298A", (0, (2, 2)), "8"),
        search={"learning_rate": Search(_decades(-4, 1))},
        diagnose=_no_diagnostics,
        needs=_matrices,
    ),
    Optimizer(
        name="shampoo",
        label="Shampoo, best learning rate",
        build=lambda learning_rate: so.shampoo(learning_rate),
        step_class="first-order",
        step_cost=cost.gradient_only,
        look=Look("#66A61E", (0, (1, 1)), "H"),
        search={"learning_rate": Search(_decades(-4, 1))},
        diagnose=_no_diagnostics,
        needs=_matrices,
    ),
)

OPTIMIZERS: dict[str, Optimizer] = {optimizer.name: optimizer for optimizer in (*_MAIN, *_FURTHER)}

#: What a comparison runs where none is named.
MAIN: tuple[str, ...] = tuple(optimizer.name for optimizer in _MAIN)
