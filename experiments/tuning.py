"""Finds a hyperparameter by a log-spaced search under a fixed budget of trials.

A coarse grid first. Then, while trials remain: where the best value lies at the edge of what was
tried, one more decade beyond that edge; otherwise the two midpoints (on the log scale) beside it.
The budget is counted and printed, for tuning is part of what a baseline costs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from experiments.engine import Prepared, Status, run

TRIALS = 10
TUNING_SEED = 1_000_003  # none of the seeds that are reported
LOOK_EVERY = 10  # steps between two looks at whether a trial converged or diverged


@dataclass(frozen=True)
class Trial:
    """A value of the hyperparameter and how the training went with it."""

    setting: float
    value: float
    """The training value at the end; infinite where the run diverged."""
    steps: int
    converged: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """Less is better: converging in few steps before not converging, then a low value."""
        return (not self.converged, self.steps if self.converged else self.value)


@dataclass(frozen=True)
class Tuning:
    """All trials of one hyperparameter, and what they cost."""

    hyperparameter: str
    trials: tuple[Trial, ...]
    steps_per_trial: int
    gradient_equivalents: float

    @property
    def best(self) -> Trial:
        return min(self.trials, key=lambda trial: trial.rank)


def next_settings(trials: list[Trial]) -> list[float]:
    """Where to look next: beyond the edge the best value lies at, or around the best value."""
    settings = sorted(trial.setting for trial in trials)
    best = min(trials, key=lambda trial: trial.rank)
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
) -> Tuning:
    """Searches the one hyperparameter of an optimizer."""
    ((name, search),) = prepared.optimizer.search.items()
    steps = steps or prepared.problem.tuning_steps
    done: list[Trial] = []
    spent = 0.0
    queue = list(search.values(prepared.problem))
    while len(done) < trials:
        queue = queue or next_settings(done)
        setting = queue.pop(0)
        result = run(prepared, TUNING_SEED, steps, {name: setting}, every=every)
        columns = result.columns
        done.append(
            Trial(
                setting=setting,
                value=math.inf if result.failed else float(columns["value"][-1]),
                steps=int(columns["step"][-1]),
                converged=result.status == Status.CONVERGED,
            )
        )
        spent += float(columns["gradient_equivalents"][-1])
        on_trial(done[-1])
    return Tuning(name, tuple(done), steps, spent)
