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
    return "" if known else "no parameter is a layer's alone; `so.layer_table` gives the reason"


def _tuned(*of: Any, searched: str = "learning_rate", **more: Any) -> Optimizer:
    """One whose only hyperparameter is searched."""
    return Optimizer(*of, **{"search": {searched: Search(_decades(-4, 1))}} | more)


# The colours here are Okabe and Ito's (and one purple), which stay apart for every common colour
# vision; dashes and marker say the same again, for print without colour.
_MAIN = (
    _tuned(
        "gradient-descent", "Gradient descent, best fixed step",
        lambda learning_rate: so.gradient_descent(learning_rate),
        "first-order", cost.gradient_only, Look("#8C8C8C", (0, (1, 1.2)), "v"),
        search={"learning_rate": Search(_decades(-2, 2), in_step_units=True)},
        diagnose=lambda state: {}, baseline=True,
    ),
    Optimizer(
        "gradient-descent-line-search", "Gradient descent, line search",
        lambda: so.gradient_descent(),
        "first-order", cost.line_searched(), Look("#000000", (0, (4, 1.5)), "^"),
        baseline=True, reuses_gradient=True,
    ),
    _tuned(
        "adam", "Adam, best learning rate",
        lambda learning_rate: optax.with_extra_args_support(optax.adam(learning_rate)),
        "first-order", cost.gradient_only, Look("#E69F00", (0, (6, 1.5, 1, 1.5)), "s"),
        diagnose=lambda state: {}, baseline=True,
    ),
    Optimizer(
        "lbfgs", "L-BFGS (Optax)", lambda: optax.lbfgs(),
        "quasi-newton", cost.line_searched(), Look("#56B4E9", (0, (8, 2)), "D"),
        diagnose=_lbfgs_diagnostics, baseline=True, reuses_gradient=True,
    ),
    Optimizer(
        "newton", "Newton", lambda: so.newton(),
        "dense", cost.line_searched(cost.HESSIAN_PRODUCT), Look("#0072B2", "solid", "o"),
        reuses_gradient=True,
    ),
    Optimizer(
        "gauss-newton", "Gauss-Newton", lambda: so.gauss_newton(),
        "dense", cost.line_searched(cost.TANGENT), Look("#D55E00", (0, (3, 1)), "X"),
        reuses_gradient=True, needs=_loss_and_model,
    ),
    Optimizer(
        "levenberg-marquardt", "Levenberg-Marquardt", lambda: so.levenberg_marquardt(),
        "dense", cost.tried(cost.TANGENT), Look("#009E73", (0, (5, 1, 1, 1, 1, 1)), "P"),
        scale="radius", needs=_loss_and_model,
    ),
    Optimizer(
        "newton-cg", "Newton-CG", lambda: so.newton_cg(),
        "matrix-free", cost.tried(cost.HESSIAN_PRODUCT), Look("#CC79A7", "solid", "*"),
        scale="radius",
    ),
    Optimizer(
        "hessian-free", "Hessian-free", lambda: so.hessian_free(),
        "matrix-free", cost.tried(cost.GAUSS_NEWTON_PRODUCT), Look("#5D3A9B", (0, (2, 1)), "h"),
        needs=_loss_and_model,
    ),
)  # fmt: skip

# Nine colours are about as many as stay apart: these, too, are told by dashes and marker.
_FURTHER = (
    Optimizer(
        "natural-gradient", "Natural gradient", lambda: so.natural_gradient(),
        "dense", cost.searched(3), Look("#882255", (0, (6, 1)), ">"), needs=_loss_and_model,
    ),
    Optimizer(
        "trust-region-newton", "Newton, trust region", lambda: so.trust_region_newton(),
        "dense", cost.tried(cost.HESSIAN_PRODUCT), Look("#999933", (0, (4, 1, 1, 1)), "<"),
    ),
    Optimizer(
        "dogleg", "Dogleg", lambda: so.dogleg(),
        "dense", cost.tried(cost.TANGENT), Look("#44AA99", (0, (1, 1)), "v"),
        scale="radius", needs=_loss_and_model,
    ),
    Optimizer(
        "hybrid-newton", "Hybrid of Gauss-Newton and Newton", lambda: so.hybrid_newton(),
        "dense", cost.hybrid, Look("#117733", (0, (9, 2)), "D"),
        diagnose=_hybrid_diagnostics, scale="radius", needs=_loss_and_model,
    ),
    Optimizer(
        "cubic-newton", "Newton, cubic model", lambda: so.cubic_newton(),
        "dense", cost.tried(cost.HESSIAN_PRODUCT), Look("#332288", (0, (2, 2)), "^"),
    ),
    Optimizer(
        "bfgs", "BFGS", lambda: so.bfgs(),
        "quasi-newton", cost.line_searched(), Look("#8B4513", "solid", "p"), reuses_gradient=True,
    ),
    Optimizer(
        "ssbfgs", "Self-scaled BFGS", lambda: so.ssbfgs(),
        "quasi-newton", cost.line_searched(), Look("#A65628", (0, (5, 2)), "o"),
        reuses_gradient=True,
    ),
    Optimizer(
        "ssbroyden", "Self-scaled Broyden", lambda: so.ssbroyden(),
        "quasi-newton", cost.line_searched(), Look("#5C3317", (0, (2, 1, 1, 1)), ">"),
        reuses_gradient=True,
    ),
    Optimizer(
        "limited-memory-bfgs", "L-BFGS (ours)", lambda: so.lbfgs(),
        "quasi-newton", cost.line_searched(), Look("#00798C", (0, (8, 2, 1, 2)), "d"),
        reuses_gradient=True,
    ),
    Optimizer(
        "sr1", "SR1, trust region", lambda: so.sr1(),
        "quasi-newton", cost.tried(0.0), Look("#B8860B", (0, (1, 1.5)), "<"), scale="radius",
    ),
    Optimizer(
        "layerwise-gauss-newton", "Layerwise Gauss-Newton", lambda: so.layerwise_gauss_newton(),
        "matrix-free", cost.by_layers, Look("#AA4499", (0, (6, 1, 1, 1)), "s"),
        needs=_loss_and_model,
    ),
    _tuned(
        "soap", "SOAP, best learning rate", lambda learning_rate: so.soap(learning_rate),
        "first-order", cost.gradient_only, Look("#E7298A", (0, (2, 2)), "8"),
        diagnose=lambda state: {}, needs=_matrices,
    ),
    _tuned(
        "shampoo", "Shampoo, best learning rate", lambda learning_rate: so.shampoo(learning_rate),
        "first-order", cost.gradient_only, Look("#66A61E", (0, (1, 1)), "H"),
        diagnose=lambda state: {}, needs=_matrices,
    ),
    _tuned(
        "kl-soap", "KL-SOAP, best learning rate", lambda learning_rate: so.kl_soap(learning_rate),
        "first-order", cost.gradient_only, Look("#7570B3", (0, (4, 2, 1, 2)), (3, 1, 0.0)),
        diagnose=lambda state: {}, needs=_matrices,
    ),
    _tuned(
        "kl-shampoo", "KL-Shampoo, best learning rate",
        lambda learning_rate: so.kl_shampoo(learning_rate),
        "first-order", cost.gradient_only, Look("#1B9E77", (0, (2, 1, 1, 1, 1, 1)), (4, 1, 0.0)),
        diagnose=lambda state: {}, needs=_matrices,
    ),
    _tuned(
        "sophia", "Sophia, best learning rate", lambda learning_rate: so.sophia(learning_rate),
        "first-order", cost.sampled(cost.GRADIENT, 10), Look("#1F4E79", (0, (5, 1)), "X"),
        diagnose=lambda state: {}, needs=_loss_and_model,
    ),
    _tuned(
        "adahessian", "AdaHessian, best learning rate",
        lambda learning_rate: so.adahessian(learning_rate),
        "first-order", cost.sampled(cost.HESSIAN_PRODUCT), Look("#B2182B", (0, (3, 1, 1, 1)), "P"),
        diagnose=lambda state: {},
    ),
    _tuned(
        "kfac", "K-FAC, best first damping",
        lambda damping, example: so.kfac(example=example, trust=damping),
        "quasi-newton", cost.layered(), Look("#006D2C", "solid", "*"),
        searched="damping", sees_layers=True, needs=_layers,
    ),
    _tuned(
        "ekfac", "EKFAC, best first damping",
        lambda damping, example: so.ekfac(example=example, trust=damping),
        "quasi-newton", cost.layered(), Look("#E6550D", "solid", "h"),
        searched="damping", sees_layers=True, needs=_layers,
    ),
)  # fmt: skip

OPTIMIZERS: dict[str, Optimizer] = {optimizer.name: optimizer for optimizer in (*_MAIN, *_FURTHER)}

#: What a comparison runs where none is named.
MAIN: tuple[str, ...] = tuple(optimizer.name for optimizer in _MAIN)
