"""Logistic regression to the last digits: Newton's steps by products against L-BFGS."""

import jax
import jax.numpy as jnp
import optax
import pandas as pd

import secondorder as so
from experiments.benchmarks.tables import Report, Request
from experiments.benchmarks.timing import race
from experiments.errors import pick
from experiments.problem import Problem
from experiments.problems import logistic, softmax

PROBLEMS = {problem.name: problem for problem in (logistic.PROBLEM, softmax.PROBLEM)}
SOLVERS = {
    "newton-cg": ("newton_cg", so.newton_cg),
    "lbfgs": ("lbfgs", so.lbfgs),
    "optax-lbfgs": ("L-BFGS (Optax)", optax.lbfgs),
}
TOLERANCE = 1e-8  # of the gradient's norm
STEPS, REPETITIONS = 1000, 9

WORDS = f"""`minimize` runs every method at its defaults, from zeros, in float64, with a tolerance
of {TOLERANCE:g} and at most {STEPS:,} steps, as one compiled program each; ‖g‖ is computed anew at
the returned parameters, and has to be no larger."""


def run(request: Request) -> Report:
    """Everyone on each of the chosen problems."""
    chosen = [PROBLEMS[name] for name in pick(request.problems, PROBLEMS, "problem")]
    solvers = pick(request.solvers, SOLVERS, "solver")
    repetitions = 1 if request.quick else REPETITIONS
    tables = {problem.title: _table(problem, solvers, repetitions) for problem in chosen}
    described = " ".join(f"**{p.name}**: {p.description}" for p in chosen)
    return Report(tables, [described, WORDS])


def _table(problem: Problem, solvers: list[str], repetitions: int) -> pd.DataFrame:
    with jax.enable_x64(problem.float64):
        data = {name: jnp.asarray(array) for name, array in problem.load().items()}
        start = problem.init(jax.random.key(0), data)
        f = problem.objective(problem.looks_at(data))

        def solve(build):
            def program(start):
                solution = so.minimize(f, start, build(), tol=TOLERANCE, max_steps=STEPS)
                return solution.steps, optax.tree.norm(jax.grad(f)(solution.params))

            return program, (start,)

        found = race({name: solve(SOLVERS[name][1]) for name in solvers}, repetitions)
        first = found[solvers[0]]
        label = SOLVERS[solvers[0]][0]
        norms = {name: float(timing.output[1]) for name, timing in found.items()}
        rows = [
            {
                "method": SOLVERS[name][0],
                "iterations": f"{int(timing.output[0])}",
                "‖g‖": f"{norms[name]:.1e}{' (missed)' * (norms[name] > TOLERANCE)}",
                "ms": f"{1e3 * timing.seconds:.3g}",
                f"of {label}'s": f"{timing.seconds / first.seconds:.2f}×",
                "s to compile": f"{timing.compile_seconds:.1f}",
            }
            for name, timing in found.items()
        ]
    return pd.DataFrame(rows)
