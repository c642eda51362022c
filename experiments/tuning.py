"""Finds a hyperparameter by a log-spaced search under a fixed budget of trials.

A coarse grid first. Then, while trials remain: where the best value lies at the edge of what was
tried, one more decade beyond that edge; otherwise the two midpoints (on the log scale) beside it.
The budget is counted and printed, for tuning is part of what a baseline costs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from experiments.engine import Prepared, run

TRIALS = 14
TUNING_SEED = 1_000_003  # none of the seeds that are reported


@dataclass(frozen=True)
class Trial:
    """One value of the hyperparameter and the training value it led to; infinite where it diverged."""

    setting: float
    value: float


@dataclass(frozen=True)
class Tuning:
    """All trials of one hyperparameter, and what they cost."""

    hyperparameter: str
    trials: tuple[Trial, ...]
    steps_per_trial: int
    gradient_equivalents: float

    @property
    def best(self) -> Trial:
        return min(self.trials, key=lambda trial: trial.value)


def next_settings(trials: list[Trial]) -> list[float]:
    """Where to look next: beyond the edge the best value lies at, or around the best value."""
    settings = sorted(trial.setting for trial in trials)
    best = min(trials, key=lambda trial: trial.value).setting
    place = settings.index(best)
    if place == 0 or not math.isfinite(min(trial.value for trial in trials)):
        return [settings[0] / 10]
    if place == len(settings) - 1:
        return [settings[-1] * 10]
    return [math.sqrt(best * settings[place - 1]), math.sqrt(best * settings[place + 1])]


def tune(
    prepared: Prepared,
    trials: int = TRIALS,
    steps: int | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Tuning:
    """Searches the one hyperparameter of an optimizer; the lowest final training value wins."""
    ((name, grid),) = prepared.optimizer.search.items()
    steps = steps or prepared.problem.tuning_steps
    done: list[Trial] = []
    spent = 0.0
    queue = list(grid)
    while len(done) < trials:
        queue = queue or next_settings(done)
        setting = queue.pop(0)
        result = run(prepared, TUNING_SEED, steps, {name: setting})
        value = math.inf if result.failed else float(result.columns["value"][-1])
        spent += float(result.columns["gradient_equivalents"][-1])
        done.append(Trial(setting, value))
        on_trial(done[-1])
    return Tuning(name, tuple(done), steps, spent)
