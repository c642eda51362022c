"""Unconstrained minimisation: this library against its peers, on the problems of the textbooks."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from experiments.bar import Bar
from experiments.benchmarks import judge, summary
from experiments.benchmarks.arena import GIVEN, REPETITIONS, Case, Run, Start, compete
from experiments.benchmarks.profiles import solver_profiles
from experiments.benchmarks.programs import STEPS, needs_peers
from experiments.benchmarks.solvers import MINIMIZE, Solver
from experiments.benchmarks.tables import Report, Request
from experiments.errors import pick
from experiments.results import long
from experiments.testset import CLASSICAL, MGH, Classical, TestProblem, starts

FACTORS = (1, 10)
UNIT = "gradient-equivalents"


def of_squares(problem: TestProblem) -> Case:
    """A sum of squares, as a plain function."""
    with jax.enable_x64(True):
        points = [np.asarray(start) for start in starts(problem, FACTORS)]
    return Case(
        name=problem.name,
        function=problem.function,
        starts=[Start(GIVEN, f"×{k}", x) for k, x in zip(FACTORS, points, strict=True)],
        minima=problem.minima,
        value=problem.function,
        polished=judge.polish_residual(problem.residual),
        settled=judge.settle(problem.function),
    )


def of_function(problem: Classical) -> Case:
    """A function of two parameters."""
    return Case(
        name=problem.name,
        function=problem.function,
        starts=[Start(GIVEN, "×1", np.array(problem.start))],
        minima=tuple(minimum.value for minimum in problem.minima),
        value=problem.function,
        polished=judge.polish_function(problem.function),
        settled=judge.settle(problem.function),
    )


def problems() -> dict[str, Case]:
    """By name; of a problem on both lists, the sum of squares."""
    plain = {name: of_function(problem) for name, problem in CLASSICAL.items()}
    return plain | {name: of_squares(problem) for name, problem in MGH.items()}


CASES = problems()

WORDS = (
    f"""The {len(MGH)} problems of Moré, Garbow and Hillstrom as plain functions f = Σr², from 1 and
10 times their standard start, and {len(CASES) - len(MGH)} classical functions of two parameters;
float64. Nothing is tuned: every solver runs at its defaults for at most {STEPS} steps, and every
tolerance (tol; rtol and atol; gtol) is {judge.FLOAT64.tolerance:g}; `optax.lbfgs` runs in a loop
with our test of the gradient. SciPy gets
compiled values, gradients and Hessians.""",
    f"""**Solved**: f, computed in float64 at the returned parameters, is right to 6 digits of a
published minimum f*. Right to d digits is |f - f*| ≤ max(10⁻ᵈ |f*|, 10⁻²ᵈ): where f* is zero,
f ≤ 10⁻²ᵈ. **False**: success is claimed at a point neither right to {judge.FLOAT64.claimed} digits
nor stationary, that is, SciPy (`lm` and `trf` on the residuals, `trust-exact` and `BFGS` on the
other functions) at 1e-15 goes on from there to a value that differs by more, and there is no saddle
beside it either. **Unlisted**: the claim is true, but of a saddle or of another stationary point
that is no published minimum: Rastrigin, Levy and Ackley
have many, and McCormick falls without end outside its customary box. Digits, iterations and cost
are medians over what a solver solved.
**Gradient-equivalents** are those of `experiments/cost.py`: a gradient with its value 1, a Hessian
product 2, a dense Hessian 2n.""",
)


def run(request: Request) -> Report:
    """All runs, judged and timed."""
    cases = [CASES[name] for name in pick(request.problems, CASES, "problem")]
    solvers = {name: MINIMIZE[name] for name in pick(request.solvers, MINIMIZE, "solver")}
    needs_peers(solvers)
    with Bar(len(cases) * len(solvers)) as bar:
        show = bar.write if request.lines else lambda line: None
        repetitions = 1 if request.quick else REPETITIONS
        runs = compete(cases, solvers, judge.FLOAT64, repetitions, bar, show)
    return report(runs, solvers)


def report(runs: Sequence[Run], solvers: Mapping[str, Solver]) -> Report:
    """The page of all runs."""
    table = summary.tabulated(runs)
    title, missed = summary.missed(table, solvers)
    tables = {
        "float64": summary.results(table, solvers, UNIT),
        "Time (float64, as given)": summary.timed(table, solvers),
        title: missed,
    }
    figure = solver_profiles(
        "minimize",
        "Minimisation: textbook problems",
        table.assign(spent=table.cost),
        solvers,
        UNIT,
        "Gradient-equivalents",
    )
    return Report(tables, WORDS, [figure], long(table, summary.KEYS))
