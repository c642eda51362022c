"""Physics-informed networks: who reaches the accuracy that the equation asks for, and how soon."""

import secondorder as so
from experiments import cost
from experiments.benchmarks.networks import Field, contest
from experiments.benchmarks.tables import Report, Request
from experiments.optimizers import OPTIMIZERS, Look, Optimizer
from experiments.problem import Problem
from experiments.problems import poisson, poisson_5d

PHYSICS = {problem.name: problem for problem in (poisson.PROBLEM, poisson_5d.PROBLEM)}


def contestants(problem: Problem) -> dict[str, Optimizer]:
    """By name; Adam first, which times are relative to."""
    natural = Optimizer(
        name="natural-gradient",
        label="Natural gradient",
        build=lambda: so.natural_gradient(),
        step_class="dense",
        step_cost=_searched(3),
        look=Look("#D55E00", "solid", "X"),
    )
    bfgs = Optimizer(
        name="bfgs",
        label="BFGS",
        build=lambda: so.bfgs(),
        step_class="quasi-newton",
        step_cost=cost.line_searched(),
        look=Look("#009E73", "solid", "P"),
        reuses_gradient=True,
    )
    searching = Optimizer(
        name="levenberg-marquardt-search",
        label="Levenberg-Marquardt, search",
        build=lambda: so.levenberg_marquardt(search=True),
        step_class="dense",
        step_cost=_searched(4),
        look=Look("#0072B2", "solid", "o"),
    )
    known = tuple(OPTIMIZERS[name] for name in ("adam", "lbfgs"))
    if problem is poisson_5d.PROBLEM:
        everyone = *known, _spring()
    else:
        everyone = *known, OPTIMIZERS["levenberg-marquardt"], bfgs, searching, natural
    return {optimizer.name: optimizer for optimizer in everyone}


def _spring() -> Optimizer:
    """For points drawn at every step: momentum, and damping by the gain ratio."""
    return Optimizer(
        name="natural-gradient",
        label="Natural gradient, momentum 0.9",
        build=lambda: so.natural_gradient(damping=1.0, momentum=0.9, search=False),
        step_class="dense",
        step_cost=cost.tried(cost.COTANGENT),
        look=Look("#D55E00", "solid", "X"),
    )


def _searched(order: int) -> cost.StepCost:
    """The gradient, the rows, derivatives along the path, and a value per fraction.

    A nested derivative is twice the work of what it is nested around: ``2ᵏ`` values for the k-th.
    """
    path = sum(2**k for k in range(2, order + 1)) * cost.VALUE

    def price(diagnostics: cost.Diagnostics) -> float:
        rows = cost.COTANGENT * diagnostics["products"]
        looks = cost.VALUE * diagnostics["looks"]
        return cost.GRADIENT + rows + path + looks + cost.TRIAL

    return price


def run(request: Request) -> Report:
    """All runs of the chosen problems."""
    return contest(request, Field(PHYSICS, contestants, "adam", ("poisson-2d",)))
