"""Finds a hyperparameter by a log-spaced search under a fixed budget of trials.

A coarse grid first. Then, while trials remain: where the best value lies at the edge of what was
tried, one more decade beyond that edge; otherwise the two midpoints (on the log scale) beside it.
The budget is counted and printed, for tuning is part of what a baseline costs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.engine import LEAP, Forgetful, Keeper, Prepared, Run, Status, run
from experiments.optimizer import Optimizer

TRIALS = 10
TUNING_SEED = 1_000_003  # none of the seeds that are reported
LOOK_EVERY = LEAP  # steps between two looks at whether a trial converged or diverged


@dataclass(frozen=True)
class Trial:
    """A value of the hyperparameter and how the training went with it."""

    setting: float
    value: float
    """The training value at the end; infinite where the run diverged."""
    steps: int
    converged: bool
    gradient_equivalents: float = 0.0
    """What it cost."""


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, best first: those that converged, by their steps; then the others, by value.

    A trial converged where its value is within a hundredth of the least value of all: a gradient
    also vanishes in a flat region far above it.
    """
    finite = [trial.value for trial in trials if math.isfinite(trial.value)]
    least = min(finite, default=math.inf)
    near = least + 0.01 * abs(least) + 1e-6 * max(map(abs, finite), default=0.0)

    def rank(trial: Trial) -> tuple[bool, float]:
        converged = trial.converged and trial.value <= near
        return not converged, trial.steps if converged else trial.value

    return sorted(trials, key=rank)


@dataclass(frozen=True)
class Tuning:
    """All trials of one hyperparameter, and what they cost."""

    hyperparameter: str
    trials: tuple[Trial, ...]
    steps_per_trial: int
    gradient_equivalents: float

    @property
    def best(self) -> Trial:
        return ranked(self.trials)[0]


def next_settings(trials: list[Trial]) -> list[float]:
    """Where to look next: beyond the edge the best value lies at, or around the best value."""
    settings = sorted(trial.setting for trial in trials)
    best = ranked(trials)[0]
    place = settings.index(best.setting)
    if place == 0 or math.isinf(best.value):
        return [settings[0] / 10]
    if place == len(settings) - 1:
        return [settings[-1] * 10]
    return [
        math.sqrt(best.setting * settings[place - 1]),
        math.sqrt(best.setting * settings[place + 1]),
    ]


def tune(
    prepared: Prepared,
    trials: int = TRIALS,
    steps: int | None = None,
    on_trial: Callable[[Trial], object] = lambda trial: None,
    every: int = LOOK_EVERY,
    *,
    kept: Sequence[Trial] = (),
    keeper: Keeper = Forgetful(),
) -> Tuning:
    """Searches the one hyperparameter of an optimizer.

    The first trials are taken from those `kept` of an interrupted search: each setting follows from
    the trials before it, so the search goes the way that it would have gone.
    """
    ((name, search),) = prepared.optimizer.search.items()
    steps = steps or prepared.problem.tuning_steps
    done: list[Trial] = []
    queue = list(search.values(prepared.problem))
    while len(done) < trials:
        queue = queue or next_settings(done)
        setting = queue.pop(0)
        if len(done) < len(kept):
            done.append(kept[len(done)])
        else:
            made = run(prepared, TUNING_SEED, steps, {name: setting}, every=every, keeper=keeper)
            done.append(_trial(setting, made))
            on_trial(done[-1])
    return gathered(prepared.optimizer, done, steps)


def gathered(optimizer: Optimizer, trials: Sequence[Trial], steps: int) -> Tuning:
    """A finished search, of its trials."""
    (name,) = optimizer.search
    spent = sum(trial.gradient_equivalents for trial in trials)
    return Tuning(name, tuple(trials), steps, spent)


def _trial(setting: float, made: Run) -> Trial:
    return Trial(
        setting=setting,
        value=math.inf if made.failed else float(made.columns["value"][-1]),
        steps=int(made.columns["step"][-1]),
        converged=made.status == Status.CONVERGED,
        gradient_equivalents=float(made.columns["gradient_equivalents"][-1]),
    )
