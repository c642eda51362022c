"""Physics-informed networks: who reaches the accuracy that the equation asks for, and how soon."""

import functools
from collections.abc import Mapping

import jax
import numpy as np

import secondorder as so
from experiments import cost, engine
from experiments.benchmarks.networks import Contest, Field, contest
from experiments.benchmarks.settings import SETTINGS
from experiments.benchmarks.tables import Report, Request
from experiments.figures import render
from experiments.figures.equation import equation_figure
from experiments.optimizer import Look, Optimizer
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem
from experiments.problems import (
    burgers,
    hard_equations,
    heat,
    physics,
    poisson,
    poisson_5d,
    published_equations,
)
from experiments.report import Illustration

PHYSICS = {
    problem.name: problem
    for problem in (
        *(module.PROBLEM for module in (poisson, poisson_5d, heat, burgers)),
        *hard_equations.PROBLEMS,
        *published_equations.PROBLEMS,
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
    elif problem in published_equations.PROBLEMS:
        further = [OPTIMIZERS[name] for name in ("hessian-free", "kfac", "ekfac")]
        everyone = *known, *further, searching, OPTIMIZERS["natural-gradient"]
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


def picture(problem: Problem, contests: Mapping[str, Contest]) -> Illustration | None:
    """The solution and that of the best method's middle seed, in two variables."""
    data = problem.load()
    if data["held_out_points"].shape[1] != 2:
        return None
    last = lambda run: run.columns["error"][-1]
    middle = lambda runs: sorted(runs, key=last)[len(runs) // 2]
    best = min((middle(contest.runs) for contest in contests.values()), key=last)
    with engine.numerics(problem):
        network = jax.jit(jax.vmap(functools.partial(physics.u, best.end)))
        found = np.asarray(network(data["held_out_points"]))
    optimizers = {name: contest.optimizer for name, contest in contests.items()}
    runs = [run for contest in contests.values() for run in contest.runs]
    label = optimizers[best.optimizer].label.split(",")[0]
    variables = ("x", "y") if problem.name.startswith("poisson") else ("t", "x")
    figure = equation_figure(problem, found, label, runs, optimizers, variables)
    words = (
        f"{problem.title}: the solution, the network trained by {label} on the median seed, their "
        "difference, and the error of every seed against seconds; dotted lines are the targets."
    )
    return Illustration(f"equation-{problem.name}", words, "", render(figure, "png"))


def run(request: Request) -> Report:
    """All runs of the chosen problems."""
    return contest(request, Field(PHYSICS, contestants, "adam", ("poisson-2d", "heat"), picture))
