"""Nonlinear regression: this library against its peers, on NIST's certified data sets."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bar import Bar
from experiments.benchmarks import judge
from experiments.benchmarks.arena import GIVEN, REPETITIONS, Case, Start, compete
from experiments.benchmarks.least_squares import report
from experiments.benchmarks.programs import STEPS, needs_peers
from experiments.benchmarks.solvers import LEAST_SQUARES, PEERS_IN_FITS
from experiments.benchmarks.tables import Report, Request
from experiments.errors import pick
from experiments.testset import NIST, Regression

#: Few roundings above the precision: these fits need the digits.
FLOAT32 = judge.FLOAT32._replace(tolerance=1e-6)
#: The unit of all residuals, and that of all parameters.
RESCALED = {
    "r × 1e6": (1e6, 1.0),
    "r × 1e-6": (1e-6, 1.0),
    "p × 1e3": (1.0, 1e3),
    "p × 1e-3": (1.0, 1e-3),
    "p × 1e6": (1.0, 1e6),
    "p × 1e-6": (1.0, 1e-6),
}
SOLVERS = LEAST_SQUARES | PEERS_IN_FITS

WORDS = (
    f"""The {len(NIST)} nonlinear regressions of NIST's Statistical Reference Datasets, from both of
their starts. Nothing is tuned: every solver runs at its defaults for at most {STEPS} steps (SciPy:
evaluations). Every tolerance (tol; rtol and atol; ftol, xtol and gtol) is
{judge.FLOAT64.tolerance:g} in float64 and {FLOAT32.tolerance:g} in float32. SciPy runs with
`x_scale='jac'` and gets compiled residuals and Jacobians.""",
    f"""**Solved**: all parameters are right to {judge.FLOAT64.digits} digits (float32:
{FLOAT32.digits}) of the certified ones. **False**: success is claimed where Σr², computed in
float64 at the returned parameters, exceeds the certified one by more than
{10.0**-judge.FLOAT64.claimed:.1%} (float32: {10.0**-FLOAT32.claimed:.0%}) and by more than
rounding of the certified parameters adds, and the point is not stationary either: SciPy's `lm` or
`trf` at 1e-15 in float64 goes on from there to a value that differs by more, and there is no saddle
beside it.
**Unlisted**: the claim is true, but of another stationary point. Digits, iterations and evaluations
are medians over what a solver solved. **Evaluations** are of the residual; a tangent or a cotangent
counts as one more, so a Jacobian counts n. **Rescaled**: all residuals times 10⁶ and 10⁻⁶; all
parameters times 10³, 10⁻³, 10⁶ and 10⁻⁶.""",
)


def case(problem: Regression, variants: tuple[str, ...], precision: judge.Precision) -> Case:
    """The fit for z, where ``params = z / unit`` and residuals are ``weight`` times larger."""
    with jax.enable_x64(True):
        slopes = np.asarray(jax.jacfwd(problem.residual)(jnp.asarray(problem.params)))
    # What rounding the parameters may add to Σr².
    rounding = np.finfo(precision.name).eps * np.linalg.norm(slopes * problem.params)
    rounding = rounding**2 + 2 * rounding * problem.squares**0.5
    unit = problem.squares + 10**precision.claimed * rounding
    measured = lambda squares: 1 + (squares - problem.squares) / unit
    polished = judge.polish_residual(problem.residual)
    value = lambda params: measured(problem.function(params))
    starts = []
    for variant in variants:
        weight, factor = RESCALED.get(variant, (1.0, 1.0))
        extra, back = (np.array(factor), np.array(weight)), partial(np.multiply, 1 / factor)
        starts += [
            Start(variant, f"{k}", factor * x, extra, back) for k, x in enumerate(problem.starts, 1)
        ]
    return Case(
        name=problem.name,
        function=lambda z, factor, weight: weight * problem.residual(z / factor),
        starts=starts,
        minima=(1.0,),
        value=value,
        polished=lambda params: measured(polished(params)),
        settled=judge.settle(value),
        digits=lambda params: least_digits(params, problem.params),
    )


def least_digits(found: np.ndarray, certified: np.ndarray) -> float:
    """The right digits of the least right number."""
    off = np.max(np.abs(found - certified) / np.abs(certified))
    if not np.isfinite(off):
        return 0.0
    return float(np.clip(-np.log10(max(off, 10**-judge.MOST)), 0, judge.MOST))


def run(request: Request) -> Report:
    """All runs, judged and timed."""
    problems = [NIST[name] for name in pick(request.problems, NIST, "data set")]
    solvers = {name: SOLVERS[name] for name in pick(request.solvers, SOLVERS, "solver")}
    needs_peers(solvers)
    variants = (GIVEN,) if request.quick else (GIVEN, *RESCALED)
    repetitions = 1 if request.quick else REPETITIONS
    rounds = [(judge.FLOAT64, variants, repetitions), (FLOAT32, (GIVEN,), 0)]
    rounds = rounds[: 1 if request.quick else 2]
    runs = []
    with Bar(len(problems) * len(solvers) * len(rounds)) as bar:
        show = bar.write if request.lines else lambda line: None
        for precision, wanted, repeated in rounds:
            cases = [case(problem, wanted, precision) for problem in problems]
            runs += compete(cases, solvers, precision, repeated, bar, show)
    title = "NIST's nonlinear regressions from two starts"
    return report("nist", title, WORDS, runs, solvers, {})
