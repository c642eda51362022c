"""Physics-informed networks: who reaches the accuracy that the equation asks for, and how soon."""

import secondorder as so
from experiments import cost
from experiments.benchmarks.networks import Field, contest
from experiments.benchmarks.settings import SETTINGS
from experiments.benchmarks.tables import Report, Request
from experiments.optimizer import Look, Optimizer
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem
from experiments.problems import burgers, hard_equations, heat, poisson, poisson_5d

PHYSICS = {
    problem.name: problem
    for problem in (
        *(module.PROBLEM for module in (poisson, poisson_5d, heat, burgers)),
        *hard_equations.PROBLEMS,
    )
}


def contestants(problem: Problem) -> dict[str, Optimizer]:
    """By name; Adam first, which times are relative to."""
    searching = Optimizer(
        name="levenberg-marquardt-search",
        label="Levenberg-Marquardt, search",
        build=lambda: so.levenberg_marquardt(trust=so.trust.line_search()),
        step_class="dense",
        step_cost=cost.searched(4),
        look=Look("#0072B2", "solid", "o"),
    )
    known = [OPTIMIZERS[name] for name in ("adam", "lbfgs")]
    if problem is poisson_5d.PROBLEM:
        everyone = *known, _spring()
    elif problem in hard_equations.PROBLEMS:  # more parameters than a dense matrix of them allows
        everyone = *known, OPTIMIZERS["natural-gradient"]
    else:
        further = [OPTIMIZERS[name] for name in ("levenberg-marquardt", "bfgs")]
        everyone = *known, *further, searching, OPTIMIZERS["natural-gradient"]
    return {optimizer.name: optimizer for optimizer in everyone}


def _spring() -> Optimizer:
    """With SPRING's momentum, and λ by the gain ratio of whole steps, one trial a step."""
    settings = dict(SETTINGS["poisson-5d", "natural-gradient"])
    policy = so.trust.damping(settings.pop("trust.damping"))
    return Optimizer(
        name="natural-gradient",
        label="Natural gradient, SPRING's momentum",
        build=lambda: so.natural_gradient(trust=policy, **settings),
        step_class="dense",
        step_cost=cost.tried(cost.COTANGENT),
        look=Look("#D55E00", "solid", "X"),
    )


def run(request: Request) -> Report:
    """All runs of the chosen problems."""
    return contest(request, Field(PHYSICS, contestants, "adam", ("poisson-2d", "heat")))
