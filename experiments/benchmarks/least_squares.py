"""Nonlinear least squares: this library against its peers, on the problems of the textbooks."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import numpy as np
import pandas as pd

from experiments.bar import Bar
from experiments.benchmarks import batch, judge, summary
from experiments.benchmarks.arena import GIVEN, REPETITIONS, Case, Run, Start, compete
from experiments.benchmarks.profiles import solver_profiles
from experiments.benchmarks.programs import STEPS, needs_peers
from experiments.benchmarks.solvers import LEAST_SQUARES, Solver
from experiments.benchmarks.tables import Report, Request
from experiments.errors import pick
from experiments.results import long, where
from experiments.testset import MGH, TestProblem, starts

FACTORS = (1, 10, 100)
UNIT = "evaluations"
SCALE = 1e6
#: The first parameter's unit, and that of all residuals; the units of the parameters alternate.
RESCALED = {"x first up": (SCALE, SCALE), "x first down": (1 / SCALE, 1 / SCALE)}

WORDS = (
    f"""{len(MGH)} problems of Moré, Garbow and Hillstrom from 1, 10 and 100 times their standard
start. Nothing is tuned: every solver runs at its defaults for at most {STEPS} steps (SciPy:
evaluations). Every tolerance (tol; rtol and atol; ftol, xtol and gtol) is
{judge.FLOAT64.tolerance:g} in float64 and {judge.FLOAT32.tolerance:g} in float32. SciPy runs with
`x_scale='jac'` and gets compiled residuals and Jacobians; `optax.lbfgs`
minimises half the sum of squares in a loop with our test of the gradient.""",
    f"""**Solved**: f = Σr², computed in float64 at the returned parameters, is right to 6 digits
(float32: 4) of a published minimum f*. Right to d digits is |f - f*| ≤ max(10⁻ᵈ f*, 10⁻²ᵈ): where
f* is zero, ‖r‖ ≤ 10⁻ᵈ. **False**: success is claimed at a point neither right to
{judge.FLOAT64.claimed} digits (float32: {judge.FLOAT32.claimed}) nor stationary, that is, SciPy's
`lm` or `trf` at 1e-15 in float64 goes on from there to a value that differs by more, and there is
no saddle beside it either. **Unlisted**: the claim is true, but of a saddle or of another
stationary point that is no published minimum. Digits, iterations and evaluations are medians over
what a solver solved. **Evaluations** are of the residual; a tangent or a cotangent counts as one
more, so a Jacobian counts n. **Rescaled**: parameters alternately in units of 1e6
and 1e-6 and residuals times 1e6; then all the other way round. **Under one vmap**, a fit is solved
where f is within a relative 1e-6 of the least that any of the solvers reaches.""",
)


def points(problem: TestProblem) -> list[np.ndarray]:
    """The starts of ``testset.starts``, in float64 whatever the switch says."""
    with jax.enable_x64(True):
        return [np.asarray(start) for start in starts(problem, FACTORS)]


def case(problem: TestProblem, variants: Sequence[str]) -> Case:
    """The problem for z, where ``params = units * z`` and residuals are ``weight`` times larger."""
    residual = problem.residual
    begins = []
    for variant in variants:
        first, weight = RESCALED.get(variant, (1.0, 1.0))
        units = np.where(np.arange(problem.n) % 2 == 0, first, 1 / first)
        extra, back = (units, np.array(weight)), partial(np.multiply, units)
        begins += [
            Start(variant, f"×{factor}", x / units, extra, back)
            for factor, x in zip(FACTORS, points(problem), strict=True)
        ]
    return Case(
        name=problem.name,
        function=lambda z, units, weight: weight * residual(units * z),
        starts=begins,
        minima=problem.minima,
        value=problem.function,
        polished=judge.polish_residual(residual),
        settled=judge.settle(problem.function),
    )


def run(request: Request) -> Report:
    """All runs, judged and timed."""
    problems = [MGH[name] for name in pick(request.problems, MGH, "problem")]
    solvers = {n: LEAST_SQUARES[n] for n in pick(request.solvers, LEAST_SQUARES, "solver")}
    needs_peers(solvers)
    variants = (GIVEN,) if request.quick else (GIVEN, *RESCALED)
    repetitions = 1 if request.quick else REPETITIONS
    total = len(problems) * len(solvers) * (1 if request.quick else 2)
    with Bar(total) as bar:
        show = bar.write if request.lines else lambda line: None
        cases = [case(problem, variants) for problem in problems]
        double = compete(cases, solvers, judge.FLOAT64, repetitions, bar, show)
        single = []
        if not request.quick:
            cases = [case(problem, (GIVEN,)) for problem in problems]
            single = compete(cases, solvers, judge.FLOAT32, 0, bar, show)
    whole = not (request.quick or request.solvers or request.problems)
    title = "Least squares: Moré, Garbow and Hillstrom from three starts"
    batches = batch.run() if whole else {}
    return report("least_squares", title, WORDS, [*double, *single], solvers, batches)


def report(
    file: str,
    title: str,
    words: Sequence[str],
    runs: Sequence[Run],
    solvers: Mapping[str, Solver],
    batches: Mapping[str, pd.DataFrame],
) -> Report:
    """The page of all runs, with its figure ``file`` of that title."""
    table = summary.tabulated(runs)
    double = where(table, table.precision == judge.FLOAT64.name)
    given = where(double, double.variant == GIVEN)
    titled = {
        "float64": given,
        "float64, rescaled both ways": double[double.variant != GIVEN],
        "float32": table[table.precision == judge.FLOAT32.name],
    }
    tables = {
        title: summary.results(group, solvers, UNIT)
        for title, group in titled.items()
        if len(group)
    }
    tables["Time (float64, as given)"] = summary.timed(given, solvers)
    lost, missed = summary.missed(table, solvers)
    figure = solver_profiles(
        file,
        title,
        given.assign(spent=given.cost / (given.n + 1)),
        solvers,
        UNIT,
        "Residual evaluations / (n + 1), derivatives counted as such",
    )
    tables |= {**batches, lost: missed}
    return Report(tables, words, [figure], long(table, summary.KEYS))
