"""Every solver on every problem, from every start; each run judged in float64."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from experiments.benchmarks.judge import ELSEWHERE, FALSE, Precision, best_digits, verdict
from experiments.benchmarks.solvers import Solver

GIVEN = "as given"  # the variant of a problem that is timed
REPETITIONS = 7
SLOW = 0.5  # seconds: a run that takes longer is timed once


class Start(NamedTuple):
    """Where to start, on which variant of a problem.

    Attributes:
      variant: of the problem; the solvers are compiled once for all of them.
      label: of the start.
      x: the parameters.
      extra: further arguments of the function: they make the variant.
      back: the parameters of the variant to those of the problem itself.
    """

    variant: str
    label: str
    x: np.ndarray
    extra: tuple = ()
    back: Callable[[np.ndarray], np.ndarray] = np.asarray


@dataclass(frozen=True)
class Case:
    """A problem for solvers."""

    name: str
    function: Callable
    """Of the parameters and a start's ``extra``: residuals, or a number."""
    starts: Sequence[Start]
    minima: tuple[float, ...]
    value: Callable
    """Of the parameters of the problem itself: what is to be least."""
    polished: Callable[[np.ndarray], float]
    """The value that an independent solver reaches from a point; see ``judge``."""
    settled: Callable[[np.ndarray], float]
    """The value at the stationary point beside a point, if there is one; see ``judge``."""
    digits: Callable[[np.ndarray], float] | None = None
    """The right digits of parameters, where these are known; else those of the value count."""


class Run(NamedTuple):
    """One solver from one start."""

    problem: str
    variant: str
    start: str
    solver: str
    n: int
    precision: Precision
    digits: float
    value: float
    claimed: bool
    verdict: str
    status: str
    steps: int
    cost: float
    seconds: float
    compile_seconds: float

    @property
    def solved(self) -> bool:
        return self.digits >= self.precision.digits

    @property
    def false(self) -> bool:
        return self.verdict == FALSE

    @property
    def elsewhere(self) -> bool:
        return self.verdict == ELSEWHERE

    def line(self) -> str:
        """For the console."""
        return (
            f"{self.problem:30}{self.start:6}{self.variant:14}{self.solver:21}"
            f"{self.digits:5.1f} digits  {'solved' if self.solved else '':7}{self.status:19}"
            f"{self.steps:5d} steps  f = {self.value:<12.6g} {self.verdict}"
        )


def compete(
    cases: Sequence[Case],
    solvers: Mapping[str, Solver],
    precision: Precision,
    repetitions: int,
    bar: tqdm,
    show: Callable[[str], None],
) -> list[Run]:
    """All runs. Only those of the first variant are timed, in interleaved rounds."""
    runs = []
    for case in cases:
        with jax.enable_x64(precision.name == "float64"):
            runs += _contest(case, solvers, precision, repetitions, bar, show)
        jax.clear_caches()  # some hundreds of compiled programs exhaust the memory maps
    return runs


def _contest(case, solvers, precision, repetitions, bar, show) -> list[Run]:
    first, dtype = case.starts[0], np.dtype(precision.name)
    cast = lambda start: tuple(np.asarray(a, dtype) for a in (start.x, *start.extra))
    programs = {}
    for name, solver in solvers.items():
        bar.set_description_str(f"{precision.name}, {case.name}, {name}")
        programs[name] = solver.prepare(case.function, precision, *cast(first))
        bar.update()
    runs = []
    with jax.enable_x64(True):
        value = jax.jit(case.value)
    for start in case.starts:
        inputs = cast(start)
        timed = repetitions if start.variant == GIVEN else 0
        seconds, ends = _race(programs, inputs, timed)
        for name, program in programs.items():
            end = program.read(ends[name])
            params = start.back(np.asarray(end.params, np.float64))
            with jax.enable_x64(True):
                found = float(value(params))
                judged = verdict(
                    end.claimed,
                    found,
                    case.minima,
                    partial(case.polished, params),
                    partial(case.settled, params),
                    precision,
                )
            run = Run(
                problem=case.name,
                variant=start.variant,
                start=start.label,
                solver=name,
                n=start.x.size,
                precision=precision,
                digits=case.digits(params) if case.digits else best_digits(found, case.minima),
                value=found,
                claimed=end.claimed,
                verdict=judged,
                status=end.status,
                steps=end.steps,
                cost=end.cost,
                seconds=seconds[name],
                compile_seconds=program.compile_seconds,
            )
            runs.append(run)
            show(run.line())
    return runs


def _race(programs: Mapping[str, Any], inputs: tuple, repetitions: int) -> tuple[dict, dict]:
    """Medians of interleaved rounds, after a first run that is not counted."""
    ends, seconds = {}, {name: [] for name in programs}
    for name, program in programs.items():
        begin = time.perf_counter()
        ends[name] = program.run(*inputs)
        if time.perf_counter() - begin > SLOW:
            seconds[name].append(time.perf_counter() - begin)
    for _ in range(repetitions):
        for name, program in programs.items():
            if seconds[name] and seconds[name][0] > SLOW:
                continue
            begin = time.perf_counter()
            program.run(*inputs)
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(s) if s else float("nan") for name, s in seconds.items()}
    return medians, ends
