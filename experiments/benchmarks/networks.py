"""Training networks: steps, seconds and gradients to a target, everyone tuned alike."""

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from experiments import engine
from experiments.bar import Bar
from experiments.benchmarks.contestants import contestants
from experiments.benchmarks.settings import SETTINGS
from experiments.benchmarks.tables import Report, Request
from experiments.benchmarks.timing import interleaved
from experiments.engine import Prepared, Run
from experiments.errors import Unavailable, pick
from experiments.optimizer import Optimizer
from experiments.problem import Problem
from experiments.problems import byte_transformer, curves, digits, fashion_mnist
from experiments.provenance import source_fingerprint
from experiments.report import Illustration
from experiments.results import long, summarise
from experiments.store import Store
from experiments.unit import Programs, Unit, collect, work

NETWORKS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        digits.AUTOENCODER,
        digits.CLASSIFIER,
        curves.PROBLEM,
        curves.MINIBATCHES,
        fashion_mnist.PROBLEM,
        byte_transformer.PROBLEM,
        byte_transformer.LARGE,
    )
}
ROUNDS, PERIOD = 7, 10  # of timing; a period holds the refreshes of what is refreshed now and then
SLOW = 1.0  # seconds of a step that is not timed again after the runs


class Length(NamedTuple):
    """How much is run of each optimizer on each problem, which has its own limits of steps."""

    seeds: int
    trials: int
    steps: int


WHOLE, QUICK = Length(3, 7, sys.maxsize), Length(1, 3, 100)


class Field(NamedTuple):
    """Who races over what.

    Attributes:
      contestants: a problem ↦ its optimizers, by name.
      baseline: what times are relative to.
      quick: the problems of a quick run.
      picture: a problem and its contests by name ↦ a picture, or None.
    """

    problems: Mapping[str, Problem]
    contestants: Callable[[Problem], Mapping[str, Optimizer]]
    baseline: str
    quick: Sequence[str]
    picture: Callable[[Problem, Mapping[str, Any]], Illustration | None] = lambda problem, of: None

    @property
    def source(self) -> str:
        """The fingerprint of the code, that of the contestants included."""
        return source_fingerprint(Path(inspect.getfile(self.contestants)))


class Contest(NamedTuple):
    """One optimizer on one problem.

    Attributes:
      seconds: of a step, refreshes included; median of interleaved rounds, or, of steps that take
        more than :data:`SLOW`, of the runs.
    """

    optimizer: Optimizer
    runs: Sequence[Run]
    seconds: float
    compile_seconds: float


def run(request: Request) -> Report:
    """All runs of the chosen problems."""
    quick = ("digits-autoencoder", "digits-classifier")
    return contest(request, Field(NETWORKS, contestants, "adamw", quick))


def contest(request: Request, field: Field) -> Report:
    """All runs of the chosen problems of a field; what had finished is not run again."""
    problems = _chosen(request, field)
    everyone = {problem.name: field.contestants(problem) for problem in problems}
    known = {name: o for optimizers in everyone.values() for name, o in optimizers.items()}
    names = pick(request.solvers, known, "method")
    names = [field.baseline, *(name for name in names if name != field.baseline)]
    length, source = QUICK if request.quick else WHOLE, field.source
    units = [
        _unit(problem, everyone[problem.name][name], length, source)
        for problem in problems
        for name in names
        if name in everyone[problem.name]
    ]
    store = Store(request.folder, request.fresh)
    store.begin(unit.names for unit in units)
    tables, found, figures = {}, [], []
    with Bar(sum(unit.parts for unit in units)) as bar:
        show = bar.write if request.lines else lambda line: None
        for problem in problems:
            racing = [unit for unit in units if unit.problem is problem]
            with Programs(problem, bar) as programs:
                contests = _contest(racing, store, programs, show)
            found.append(_results(problem, contests))
            tables[problem.title] = _table(problem, contests, found[-1])
            drawn = field.picture(problem, {each.optimizer.name: each for each in contests})
            figures += [drawn] if drawn else []
    if bar.skipped:
        print(bar.used_again(request.folder))
    results = long(pd.concat(found).replace(math.inf, math.nan))
    return Report(tables, [_words(problems, units, length)], figures, measured=results)


def _chosen(request: Request, field: Field) -> list[Problem]:
    """The problems to run; of all, those whose data this machine has or can fetch."""
    named = request.problems or (field.quick if request.quick else ())
    problems = [field.problems[name] for name in pick(named, field.problems, "problem")]
    at_hand = []
    for problem in problems:
        try:
            problem.load()
            at_hand.append(problem)
        except Unavailable as error:
            if request.problems:
                raise
            print(f"{problem.name} is left out. {error}")
    return at_hand


def _unit(problem: Problem, optimizer: Optimizer, length: Length, source: str) -> Unit:
    return Unit(
        problem,
        optimizer,
        min(problem.steps[optimizer.step_class], length.steps),
        range(length.seeds),
        source,
        trials=length.trials,
        every=problem.look_every,
        trial_every=max(2, problem.look_every),
        details=SETTINGS.get((problem.name, optimizer.name), {}),
    )


def _words(problems: Sequence[Problem], units: Sequence[Unit], length: Length) -> str:
    budget = ", ".join(f"{p.name} {min(p.tuning_steps, length.steps):,}" for p in problems)
    own = "; ".join(
        f"{unit.optimizer.name} on {unit.problem.name}: "
        + ", ".join(_setting(k, v) for k, v in unit.details.items())
        for unit in units
        if unit.details
    )
    limits = ", ".join(f"{p.name} {_limits(p, units)}" for p in problems)
    absent = "; ".join(
        f"{who} on {p.name}: {why}" for p in problems for who, why in p.left_out.items()
    )
    described = " ".join(f"**{p.name}**: {p.description}{_looks(p)}" for p in problems)
    if {byte_transformer.PROBLEM.name, byte_transformer.LARGE.name} & {p.name for p in problems}:
        described += f" The SHA-256 of the text begins with {byte_transformer.fingerprint()}."
    untuned = "; ".join(_untuned(units))
    nobody = f" (None to tune: {untuned}.)" if untuned else ""
    seeds, trials, _ = length
    return f"""{described} Each has one hyperparameter tuned, by {trials} trials on
a seed of their own, of at most so many steps: {budget}.{nobody} Runs end after so many:
{limits}. What is not at its default: {own or "nothing"}. {f"Not run: {absent}." if absent else ""}
Times of steps of over {SLOW:g} s are those of the runs.
Medians of {seeds} seed{"s" * (seeds > 1)}; a target that most seeds do not reach is a dash, and
one that only some reach has their number. Gradient-equivalents count a gradient as 1, by the rules
of `experiments/cost.py`; Grams, factorisations and products with the inverses show in seconds
only."""


def _setting(name: str, value: Any) -> str:
    return f"curvature of one example in {value}" if name == "part" else f"{name}={value}"


def _limits(problem: Problem, units: Sequence[Unit]) -> str:
    """At most so many steps, and who has other limits than most."""
    labels: dict[int, list[str]] = {}
    for unit in units:
        if unit.problem is problem:
            labels.setdefault(unit.steps, []).append(unit.optimizer.label)
    usual = max(labels, key=lambda steps: len(labels[steps]))
    others = [f"{n:,}: {'; '.join(who)}" for n, who in labels.items() if n != usual]
    return f"{usual:,}" + "".join(f" ({each})" for each in others)


def _untuned(units: Sequence[Unit]) -> Iterator[str]:
    """Who has nothing to tune, and where, if not everywhere."""
    for label in dict.fromkeys(unit.optimizer.label for unit in units):
        everywhere = [unit for unit in units if unit.optimizer.label == label]
        untuned = [unit for unit in everywhere if not unit.optimizer.search]
        if len(untuned) == len(everywhere):
            yield label
        elif untuned:
            yield f"{label} on {' and '.join(unit.problem.name for unit in untuned)}"


def _looks(problem: Problem) -> str:
    every = problem.look_every
    return f" Looked at each {every} steps." if every > 1 else ""


def _contest(
    units: Sequence[Unit], store: Store, programs: Programs, show: Callable[[str], object]
) -> list[Contest]:
    """The runs on one problem, the baseline's first, and then the time of a step of each."""
    runs: dict[str, list[Run]] = {}
    problem = programs.problem
    with engine.numerics(problem):
        start = problem.init(jax.random.key(0), problem.load())
    for unit in units:
        work(unit, store, programs)
        with engine.numerics(problem):
            runs[unit.optimizer.name] = collect(unit, store, start).runs
        show(_line(runs[unit.optimizer.name]))
    prepared = {unit.optimizer.name: programs.of(unit.optimizer) for unit in units}
    programs.bar.set_description_str(f"{programs.problem.name} · timing")
    seconds = {name: np.median([_pace(run) for run in mine]) for name, mine in runs.items()}
    # Measured anew whatever is kept: ratios of times are of one sitting.
    quick = {name: prepared[name] for name, pace in seconds.items() if pace <= SLOW}
    if quick:
        seconds |= race(quick, {name: runs[name][0].hyperparameters for name in quick})
    return [
        Contest(p.optimizer, runs[name], seconds[name], p.compile_seconds)
        for name, p in prepared.items()
    ]


def _pace(run: Run) -> float:
    """Seconds of a step, over the whole run."""
    return float(run.columns["seconds"][-1] / max(run.columns["step"][-1], 1))


def _line(runs: Sequence[Run]) -> str:
    ends = (f"{r.columns['error'][-1]:.4g} after {r.columns['step'][-1]:.0f}" for r in runs)
    one = runs[0]
    return f"{one.problem}  {one.optimizer}  {one.hyperparameters}  error {', '.join(ends)}"


def race(
    prepared: Mapping[str, Prepared], chosen: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Seconds of a step: medians of rounds in which each takes a period of steps, in turn."""
    first = next(iter(prepared.values()))

    def training(p: Prepared, chosen: Mapping[str, float]):
        batch = next(engine.batches(p.setting, 0))
        settings = {k: jax.numpy.asarray(v, float) for k, v in chosen.items()}
        params = p.problem.init(jax.random.key(0), p.setting.data)
        state = p.start(params, settings)

        def period():
            nonlocal params, state
            for _ in range(PERIOD):
                params, state, _ = p.step(params, state, batch, settings)
            return params

        return period

    with engine.numerics(first.problem):
        periods = {name: training(p, chosen[name]) for name, p in prepared.items()}
        return {name: s / PERIOD for name, s in interleaved(periods, ROUNDS).items()}


def _results(problem: Problem, contests: Sequence[Contest]) -> pd.DataFrame:
    """The results table, its targets those of the error, its times of a step those of the race."""
    runs = [run for contest in contests for run in contest.runs]
    for run in runs:
        run.columns["measure"] = run.columns["error"]
    seconds = {contest.optimizer.name: contest.seconds for contest in contests}
    compiling = {contest.optimizer.name: contest.compile_seconds for contest in contests}
    found = summarise(problem, runs)
    found["milliseconds_per_step"] = 1e3 * found.optimizer.map(seconds)
    return found.assign(compile_seconds=found.optimizer.map(compiling))


def _table(problem: Problem, contests: Sequence[Contest], found: pd.DataFrame) -> pd.DataFrame:
    base = contests[0].optimizer
    shown: list[tuple[str, Iterable[str]]] = [
        ("method", [contest.optimizer.label for contest in contests]),
        ("tuned", [_tuned(contest.runs[0]) for contest in contests]),
    ]
    for target in problem.targets:
        at = found[found.target == target]
        several = [f" ({a} of {b})" * (a < b) for a, b in zip(at.reached, at.seeds, strict=True)]
        steps = at.steps.map("{:.0f}".format) + several
        texts = [
            steps,
            at.seconds.map("{:.2f}".format),
            at.gradient_equivalents.map("{:.0f}".format),
        ]
        names = (f"steps to {target:g}", "s", "gradients")
        shown += zip(names, (x.where(np.isfinite(at.steps), "-") for x in texts), strict=True)
    shown += [
        ("error at the end", at.last_measure.map("{:.3g}".format)),
        ("ms a step", at.milliseconds_per_step.map("{:.3g}".format)),
        (
            f"of {base.label.split(',')[0]}'s",
            (at.milliseconds_per_step / at.milliseconds_per_step.iloc[0]).map("{:.2f}×".format),
        ),
        ("s to compile", at.compile_seconds.map("{:.1f}".format)),
    ]
    names, columns = zip(*shown, strict=True)
    return pd.DataFrame(list(zip(*columns, strict=True)), columns=list(names))


def _tuned(run: Run) -> str:
    chosen = run.hyperparameters.items()
    return ", ".join(f"{name.replace('_', ' ')} {v:.2g}" for name, v in chosen) or "-"
