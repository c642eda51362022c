"""Physics-informed networks: who reaches the accuracy that the equation asks for, and how soon."""

import math

import secondorder as so
from experiments import cost
from experiments.benchmarks.networks import Field, contest
from experiments.benchmarks.tables import Report, Request
from experiments.optimizers import OPTIMIZERS, Look, Optimizer
from experiments.problem import Problem
from experiments.problems import poisson

PHYSICS = {problem.name: problem for problem in (poisson.PROBLEM,)}


def contestants(problem: Problem) -> dict[str, Optimizer]:
    """By name; Adam first, which times are relative to."""
    del problem
    natural = Optimizer(
        name="natural-gradient",
        label="Natural gradient",
        build=lambda: so.natural_gradient(),
        step_class="dense",
        step_cost=_searched,
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
    known = (OPTIMIZERS[name] for name in ("adam", "lbfgs", "levenberg-marquardt"))
    return {optimizer.name: optimizer for optimizer in (*known, bfgs, natural)}


def _searched(diagnostics: cost.Diagnostics) -> float:
    """The gradient, the rows, a second derivative along the step, and a value per fraction."""
    looks = 2 - math.log2(diagnostics["fraction"])
    rows = cost.COTANGENT * diagnostics["products"]
    return cost.GRADIENT + rows + 2 * cost.TANGENT + cost.VALUE * looks + cost.TRIAL


def run(request: Request) -> Report:
    """All runs of the chosen problems."""
    return contest(request, Field(PHYSICS, contestants, "adam", tuple(PHYSICS)))
