"""A thousand fits under one ``vmap``."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import secondorder as so
from experiments.benchmarks.programs import STEPS, peer
from experiments.benchmarks.tables import times
from experiments.benchmarks.timing import race
from experiments.testset import MGH

FITS = 1024
TOLERANCE = 1e-8


def problems():
    """Name ↦ residual of parameters and data, starts, data."""
    random = np.random.default_rng(0)
    rosenbrock = MGH["rosenbrock"]
    starts = np.array(rosenbrock.start) + random.normal(size=(FITS, 2))
    t = np.linspace(0, 4, 30)
    truth = np.array([5.0, 1.5, 1.0]) * np.exp(0.3 * random.normal(size=(FITS, 3)))
    clean = truth[:, :1] * np.exp(-truth[:, 1:2] * t) + truth[:, 2:]
    noisy = clean + 0.05 * random.normal(size=clean.shape)
    return {
        "Rosenbrock from 1024 starts": (
            lambda p, data: rosenbrock.residual(p),
            starts,
            np.zeros((FITS, 1)),
        ),
        "a decaying exponential fitted to 1024 data sets": (
            lambda p, data: p[0] * jnp.exp(-p[1] * t) + p[2] - data,
            np.tile([1.0, 1.0, 0.0], (FITS, 1)),
            noisy,
        ),
    }


def solvers():
    """By label: a solve of one fit, to its parameters and how many steps it took."""
    optx = peer("optimistix")

    def of_ours(method):
        def solve(residual, x):
            end = so.least_squares(residual, x, method(), max_steps=STEPS)
            return end.params, end.steps

        return solve

    def of_theirs(kind):
        solver = getattr(optx, kind)(rtol=TOLERANCE, atol=TOLERANCE)

        def solve(residual, x):
            fn = lambda p, args: residual(p)
            end = optx.least_squares(fn, solver, x, max_steps=STEPS, throw=False)
            return end.value, end.stats["num_steps"]

        return solve

    return {
        "levenberg_marquardt": of_ours(so.levenberg_marquardt),
        "dogleg": of_ours(so.dogleg),
        "Optimistix Dogleg": of_theirs("Dogleg"),
        "Optimistix LevenbergMarquardt": of_theirs("LevenbergMarquardt"),
    }


def run() -> dict[str, pd.DataFrame]:
    """One table per problem, float64."""
    with jax.enable_x64(True):
        return {f"Under one vmap: {title}": _table(*of) for title, of in problems().items()}


def _table(residual, starts, data) -> pd.DataFrame:
    fit = lambda solve: jax.vmap(lambda x, d: solve(lambda p: residual(p, d), x))
    programs = {name: (fit(solve), (starts, data)) for name, solve in solvers().items()}
    cost = race(programs, 5)
    square = jax.jit(jax.vmap(lambda p, d: jnp.sum(residual(p, d) ** 2)))
    values = {
        name: np.nan_to_num(np.asarray(square(timing.output[0], data)), nan=np.inf)
        for name, timing in cost.items()
    }
    least = np.min(list(values.values()), axis=0)
    own = cost["levenberg_marquardt"]
    solved = lambda name: np.mean(values[name] <= np.maximum(least * (1 + 1e-6), 1e-12))
    rows = [
        {
            "solver": name,
            "solved": f"{solved(name):.1%}",
            "ms for all": f"{1e3 * timing.seconds:.3g}",
            "time / levenberg_marquardt": times(timing.seconds / own.seconds),
            "median steps": f"{np.median(timing.output[1]):.0f}",
            "most steps": f"{np.max(timing.output[1])}",
            "s to compile": f"{timing.compile_seconds:.2f}",
        }
        for name, timing in cost.items()
    ]
    return pd.DataFrame(rows)
