"""Training networks: steps, seconds and gradients to a target, everyone tuned alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from experiments import engine, tuning
from experiments.benchmarks.contestants import SETTINGS, contestants
from experiments.benchmarks.tables import BAR, Report, Request, Table
from experiments.benchmarks.timing import interleaved
from experiments.engine import Prepared, Run
from experiments.errors import pick
from experiments.optimizers import Optimizer
from experiments.problem import Problem
from experiments.problems import byte_transformer, curves, digits_autoencoder, digits_classifier

NETWORKS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        digits_autoencoder.PROBLEM,
        digits_classifier.PROBLEM,
        curves.PROBLEM,
        curves.MINIBATCHES,
        byte_transformer.PROBLEM,
    )
}
SEEDS, TRIALS = 3, 7
QUICK_SEEDS, QUICK_TRIALS, QUICK_STEPS = 1, 3, 100
ROUNDS, PERIOD = 7, 10  # of timing; a period holds the refreshes of what is refreshed now and then


class Field(NamedTuple):
    """Who races over what.

    Attributes:
      contestants: a problem ↦ its optimizers, by name.
      baseline: what times are relative to.
      quick: the problems of a quick run.
    """

    problems: Mapping[str, Problem]
    contestants: Callable[[Problem], Mapping[str, Optimizer]]
    baseline: str
    quick: Sequence[str]


class Contest(NamedTuple):
    """One optimizer on one problem.

    Attributes:
      tuned: the hyperparameter's value, by name; empty where nothing is tuned.
      seconds: of a step, refreshes included; median of interleaved rounds.
    """

    optimizer: Optimizer
    runs: Sequence[Run]
    tuned: Mapping[str, float]
    seconds: float
    compile_seconds: float


def run(request: Request) -> Report:
    """All runs of the chosen problems."""
    quick = ("digits-autoencoder", "digits-classifier")
    return contest(request, Field(NETWORKS, contestants, "adamw", quick))


def contest(request: Request, field: Field) -> Report:
    """All runs of the chosen problems of a field."""
    chosen = request.problems or (field.quick if request.quick else ())
    problems = [field.problems[name] for name in pick(chosen, field.problems, "problem")]
    known = {name: o for problem in problems for name, o in field.contestants(problem).items()}
    names = pick(request.solvers, known, "method")
    names = [field.baseline, *(name for name in names if name != field.baseline)]
    trials = QUICK_TRIALS if request.quick else TRIALS
    tables = []
    with tqdm(total=len(problems) * len(names), bar_format=BAR) as bar:
        for problem in problems:
            everyone = field.contestants(problem)
            racing = {name: everyone[name] for name in names if name in everyone}
            tables += _contest(problem, racing, request, trials, bar)
    untuned = [known[name].label for name in names if not known[name].search]
    return Report(tables, [_words(problems, names, untuned, trials, request.quick)])


def _words(
    problems: Sequence[Problem],
    names: Sequence[str],
    untuned: Sequence[str],
    trials: int,
    quick: bool,
) -> str:
    budget = ", ".join(f"{p.name} {_limit(p.tuning_steps, quick):,}" for p in problems)
    own = "; ".join(
        f"{method} on {problem}: " + ", ".join(f"{k}={v}" for k, v in settings.items())
        for (problem, method), settings in SETTINGS.items()
        if method in names and problem in {p.name for p in problems}
    )
    seeds = QUICK_SEEDS if quick else SEEDS
    described = " ".join(f"**{p.name}**: {p.description}{_looks(p)}" for p in problems)
    if any(p is byte_transformer.PROBLEM for p in problems):
        described += f" The SHA-256 of the text begins with {byte_transformer.fingerprint()}."
    nobody = ", ".join(untuned) or "nobody"
    return f"""{described} Every method has one hyperparameter tuned, with {trials} trials on a
seed of their own, each of at most so many steps: {budget}. (None to tune: {nobody}.) What is not at
its default: {own or "nothing"}. Medians of {seeds} seed{"s" * (seeds > 1)}; a target that most
seeds do not reach is a dash, and one that some do not says how many do. Gradient-equivalents count
a gradient as 1, by the rules of `experiments/cost.py`; Grams, factorisations and products with the
inverses show in seconds only."""


def _looks(problem: Problem) -> str:
    every = problem.look_every
    return f" Looked at each {every} steps." if every > 1 else ""


def _limit(steps: int, quick: bool) -> int:
    return min(steps, QUICK_STEPS) if quick else steps


def _contest(
    problem: Problem, racing: Mapping[str, Optimizer], request: Request, trials: int, bar: tqdm
) -> list[Table]:
    """The runs of the racing optimizers, the first being the baseline."""
    setting = engine.set_up(problem)
    prepared, found, quick = {}, {}, request.quick
    for name, optimizer in racing.items():
        bar.set_description_str(f"{problem.name}, {name}, compiling")
        prepared[name] = engine.prepare(setting, optimizer)
        steps = _limit(problem.steps[optimizer.step_class], quick)
        tuned = {}
        if optimizer.search:
            bar.set_description_str(f"{problem.name}, {name}, tuning")
            trial_steps = _limit(min(steps, problem.tuning_steps), quick)
            best = tuning.tune(
                prepared[name], trials, trial_steps, every=max(2, problem.look_every)
            )
            tuned = {best.hyperparameter: best.best.setting}
        runs = []
        for seed in range(QUICK_SEEDS if quick else SEEDS):
            bar.set_description_str(f"{problem.name}, {name}, seed {seed}")
            runs.append(engine.run(prepared[name], seed, steps, tuned, every=problem.look_every))
        found[name] = tuned, runs
        if request.lines:
            ends = ", ".join(
                f"{r.columns['error'][-1]:.4g} after {r.columns['step'][-1]:.0f}" for r in runs
            )
            bar.write(f"{problem.name}  {name}  {tuned}  error {ends}")
        bar.update()
    bar.set_description_str(f"{problem.name}, timing")
    seconds = race(prepared, {name: tuned for name, (tuned, _) in found.items()})
    contests = [
        Contest(racing[n], runs, tuned, seconds[n], prepared[n].compile_seconds)
        for n, (tuned, runs) in found.items()
    ]
    return [_table(problem, contests)]


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


def reached(run: Run, target: float, column: str) -> float:
    """The column's number at the first row whose error is down to the target; NaN if none."""
    below = np.flatnonzero(run.columns["error"] <= target)
    return float(run.columns[column][below[0]]) if len(below) else float("nan")


def _median(runs: Sequence[Run], target: float, column: str) -> float:
    numbers = [reached(run, target, column) for run in runs]
    missed = sum(np.isnan(number) for number in numbers)
    if 2 * missed >= len(numbers):
        return float("nan")
    return float(np.median(np.nan_to_num(numbers, nan=np.inf)))


def _unless_all(runs: Sequence[Run], target: float) -> str:
    count = sum(not np.isnan(reached(run, target, "step")) for run in runs)
    return "" if count == len(runs) else f" ({count} of {len(runs)})"


def _table(problem: Problem, contests: Sequence[Contest]) -> Table:
    base = contests[0]
    header = ["method", "tuned"]
    for target in problem.targets:
        header += [f"steps to {target:g}", "s", "gradients"]
    header += [
        "error at the end",
        "ms a step",
        f"of {base.optimizer.label.split(',')[0]}'s",
        "s to compile",
    ]
    rows = []
    for c in contests:
        tuned = ", ".join(f"{name.replace('_', ' ')} {v:.2g}" for name, v in c.tuned.items())
        row = [c.optimizer.label, tuned or "-"]
        for target in problem.targets:
            for column, form in (
                ("step", ".0f"),
                ("seconds", ".2f"),
                ("gradient_equivalents", ".0f"),
            ):
                number = _median(c.runs, target, column)
                row.append("-" if np.isnan(number) else format(number, form))
                if column == "step" and row[-1] != "-":
                    row[-1] += _unless_all(c.runs, target)
        ends = np.median([run.columns["error"][-1] for run in c.runs])
        row += [f"{ends:.3g}", f"{1e3 * c.seconds:.3g}", f"{c.seconds / base.seconds:.2f}×"]
        rows.append([*row, f"{c.compile_seconds:.1f}"])
    return Table(problem.title, header, rows)
