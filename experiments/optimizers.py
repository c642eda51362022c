"""The optimizers by name. A new one is an entry here."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

import secondorder as so
from experiments import cost
from experiments.optimizer import Look, Optimizer, Search
from experiments.problem import Problem


def _decades(low: int, high: int) -> tuple[float, ...]:
    return tuple(10.0**exponent for exponent in range(low, high + 1))


def _no_diagnostics(state: Any) -> Mapping[str, jax.Array]:
    del state
    return {}


def _lbfgs_diagnostics(state: Any) -> Mapping[str, jax.Array]:
    return {"linesearch_steps": optax.tree.get(state, "num_linesearch_steps")}


def _hybrid_diagnostics(state: Any) -> Mapping[str, jax.Array]:
    """With which of its two matrices the step was taken."""
    return {**so.diagnostics(state), "newton": optax.tree.get(state, "newton")}


def _loss_and_model(problem: Problem) -> str:
    """For methods of Gauss-Newton kind."""
    _, objective = problem.example()
    return "" if isinstance(objective, so.Objective) else "its objective is no loss after a model"


def _matrices(problem: Problem) -> str:
    """For methods that treat vectors as a diagonal method does."""
    shapes, _ = problem.example()
    several = any(leaf.ndim > 1 for leaf in jax.tree.leaves(shapes))
    return "" if several else "it has no matrix among its parameters"


def _layers(problem: Problem) -> str:
    """For methods that know a layer by how the model uses its parameters."""
    if why := _loss_and_model(problem):
        return why
    shapes, objective = problem.example()
    with jax.enable_x64(problem.float64):
        table = so.layer_table(objective, shapes)
    known = any(not row.block.startswith("fallback") for row in table)
    return "" if known else "no parameter is a layer's alone; `so.layer_table` says why"


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
        name="dogleg",
        label="Dogleg",
        build=lambda: so.dogleg(),
        step_class="dense",
        step_cost=cost.tried(cost.TANGENT),
        look=Look("#44AA99", (0, (1, 1)), "v"),
        scale="radius",
        needs=_loss_and_model,
    ),
    Optimizer(
        name="hybrid-newton",
        label="Hybrid of Gauss-Newton and Newton",
        build=lambda: so.hybrid_newton(),
        step_class="dense",
        step_cost=cost.hybrid,
        look=Look("#117733", (0, (9, 2)), "D"),
        diagnose=_hybrid_diagnostics,
        scale="radius",
        needs=_loss_and_model,
    ),
    Optimizer(
        name="cubic-newton",
        label="Newton, cubic model",
        build=lambda: so.cubic_newton(),
        step_class="dense",
        step_cost=cost.tried(cost.HESSIAN_PRODUCT),
        look=Look("#332288", (0, (2, 2)), "^"),
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
        name="sr1",
        label="SR1, trust region",
        build=lambda: so.sr1(),
        step_class="quasi-newton",
        step_cost=cost.tried(0.0),
        look=Look("#B8860B", (0, (1, 1.5)), "<"),
        scale="radius",
    ),
    Optimizer(
        name="layerwise-gauss-newton",
        label="Layerwise Gauss-Newton",
        build=lambda: so.layerwise_gauss_newton(),
        step_class="matrix-free",
        step_cost=cost.by_layers,
        look=Look("#AA4499", (0, (6, 1, 1, 1)), "s"),
        needs=_loss_and_model,
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
    Optimizer(
        name="sophia",
        label="Sophia, best learning rate",
        build=lambda learning_rate: so.sophia(learning_rate),
        step_class="first-order",
        step_cost=cost.sampled(cost.GRADIENT, 10),
        look=Look("#1F4E79", (0, (5, 1)), "X"),
        search={"learning_rate": Search(_decades(-4, 1))},
        diagnose=_no_diagnostics,
        needs=_loss_and_model,
    ),
    Optimizer(
        name="adahessian",
        label="AdaHessian, best learning rate",
        build=lambda learning_rate: so.adahessian(learning_rate),
        step_class="first-order",
        step_cost=cost.sampled(cost.HESSIAN_PRODUCT),
        look=Look("#B2182B", (0, (3, 1, 1, 1)), "P"),
        search={"learning_rate": Search(_decades(-4, 1))},
        diagnose=_no_diagnostics,
    ),
    Optimizer(
        name="kfac",
        label="K-FAC, best first damping",
        build=lambda damping, example: so.kfac(example=example, trust=damping),
        step_class="quasi-newton",
        step_cost=cost.layered(),
        look=Look("#006D2C", "solid", "*"),
        search={"damping": Search(_decades(-4, 1))},
        sees_layers=True,
        needs=_layers,
    ),
    Optimizer(
        name="ekfac",
        label="EKFAC, best first damping",
        build=lambda damping, example: so.ekfac(example=example, trust=damping),
        step_class="quasi-newton",
        step_cost=cost.layered(),
        look=Look("#E6550D", "solid", "h"),
        search={"damping": Search(_decades(-4, 1))},
        sees_layers=True,
        needs=_layers,
    ),
)

OPTIMIZERS: dict[str, Optimizer] = {optimizer.name: optimizer for optimizer in (*_MAIN, *_FURTHER)}

#: What a comparison runs where none is named.
MAIN: tuple[str, ...] = tuple(optimizer.name for optimizer in _MAIN)
