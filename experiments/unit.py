"""One optimizer on one problem, with its tuning and all its seeds: what is run in one piece."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from experiments import engine, tuning
from experiments.bar import Shows
from experiments.engine import Prepared, Run, Setting
from experiments.optimizer import Optimizer
from experiments.problem import Problem
from experiments.provenance import versions
from experiments.store import Store
from experiments.tuning import Trial, Tuning

# Twice the two cores, since tracing waits for Python's lock while XLA does not.
COMPILED_AT_ONCE = 4


@dataclass(frozen=True)
class Unit:
    """What is to be run, how long, and by which code."""

    problem: Problem
    optimizer: Optimizer
    steps: int
    seeds: range
    source: str
    """The fingerprint of the code."""
    trials: int = tuning.TRIALS
    every: int = 1
    """Steps between two rows of a run."""
    trial_every: int = tuning.LOOK_EVERY
    """Those between two looks at a trial."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the optimizer was built with, where the code does not tell."""

    @functools.cached_property
    def settings(self) -> Mapping[str, Any]:
        """A run is used again, or gone on with, where all of this is unchanged."""
        return {
            "problem": self.problem.name,
            "optimizer": self.optimizer.name,
            "steps": self.steps,
            "trials": self.trials,
            "every": self.every,
            "trial_every": self.trial_every,
            "details": dict(self.details),
            "source": self.source,
            "versions": versions(),
            "device": jax.devices()[0].device_kind,
        }

    @property
    def names(self) -> tuple[str, str]:
        return self.problem.name, self.optimizer.name

    @property
    def title(self) -> str:
        return " · ".join(self.names)

    @property
    def parts(self) -> int:
        """Runs and trials: what a progress bar counts."""
        return len(self.seeds) + self.trials * bool(self.optimizer.search)

    @property
    def tuning_steps(self) -> int:
        return min(self.steps, self.problem.tuning_steps)


class Finished(NamedTuple):
    """What a store holds of a unit."""

    tuning: Tuning | None
    runs: list[Run]

    def is_all_of(self, unit: Unit) -> bool:
        tuned = self.tuning is not None or not unit.optimizer.search
        return tuned and len(self.runs) == len(unit.seeds)


def collect(unit: Unit, store: Store, like: Any = None) -> Finished:
    """What had finished of a unit under its settings; runs with parameters where some are given."""
    trials = store.load_trials(unit.names, unit.settings) if unit.optimizer.search else []
    found = None
    if unit.optimizer.search and len(trials) == unit.trials:
        found = tuning.gathered(unit.optimizer, trials, unit.tuning_steps)
    runs = [store.load_run(unit.names, seed, unit.settings, like) for seed in unit.seeds]
    return Finished(found, [run for run in runs if run is not None])


class Programs:
    """One problem's programs, compiled side by side: one compilation hardly fills one core.

    Nothing is timed before `wait` has returned. A search is not timed, nor is drawing, so both
    may be at work while the rest compiles.
    """

    def __init__(self, problem: Problem, bar: Shows):
        self.problem, self.bar = problem, bar
        self._prepared: dict[str, Future[Prepared]] = {}
        self._setting: Future[Setting] | None = None
        self._pool = ThreadPoolExecutor(COMPILED_AT_ONCE)

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, optimizers: Iterable[Optimizer]) -> None:
        """Has these compiled, in this order."""
        for optimizer in optimizers:
            setting = self._setting = self._setting or self._pool.submit(
                engine.set_up, self.problem
            )
            self._prepared[optimizer.name] = self._pool.submit(
                lambda optimizer=optimizer, setting=setting: engine.prepare(
                    setting.result(), optimizer
                )
            )

    def of(self, optimizer: Optimizer) -> Prepared:
        if optimizer.name not in self._prepared:
            self.begin([optimizer])
        if not self._prepared[optimizer.name].done():
            self.bar.set_description_str(f"{self.problem.name} · compiling")
        return self._prepared[optimizer.name].result()

    def wait(self) -> None:
        """Until nothing compiles any more, and clocks may start."""
        for prepared in list(self._prepared.values()):
            if not prepared.done():
                self.bar.set_description_str(f"{self.problem.name} · compiling")
            prepared.result()


def work(unit: Unit, store: Store, programs: Programs) -> None:
    """Runs what the store lacks of a unit; whatever ends is in the store at once."""
    chosen = search(unit, store, programs)
    programs.wait()
    train(unit, chosen, store, programs)


def train(unit: Unit, chosen: Mapping[str, float], store: Store, programs: Programs) -> None:
    """The runs of all seeds."""
    for seed in unit.seeds:
        checkpoint = store.checkpoint(unit.names, f"seed-{seed}", unit.settings)
        if store.load_run(unit.names, seed, unit.settings) is None:
            prepared = programs.of(unit.optimizer)
            with _part(f"{unit.title} · seed {seed}", programs.bar) as on_step:
                finished = engine.run(
                    prepared,
                    seed,
                    unit.steps,
                    chosen,
                    every=unit.every,
                    on_step=on_step,
                    keeper=checkpoint,
                )
            store.save_run(finished, unit.settings)
        else:
            programs.bar.skip(1)
        checkpoint.discard()


def search(unit: Unit, store: Store, programs: Programs) -> dict[str, float]:
    """The hyperparameter that the trials choose, where there is one."""
    if not unit.optimizer.search:
        return {}
    ended = store.load_trials(unit.names, unit.settings)
    programs.bar.skip(len(ended))
    if len(ended) < unit.trials:
        ended = _tune(unit, ended, store, programs)
    found = tuning.gathered(unit.optimizer, ended, unit.tuning_steps)
    return {found.hyperparameter: found.best.setting}


def _tune(unit: Unit, kept: Sequence[Trial], store: Store, programs: Programs) -> tuple[Trial, ...]:
    ended = list(kept)
    prepared = programs.of(unit.optimizer)
    programs.bar.set_description_str(f"{unit.title} · tuning")
    checkpoint = store.checkpoint(unit.names, "trial", unit.settings)

    def keep(trial: Trial) -> None:
        ended.append(trial)
        store.save_trials(unit.names, ended, unit.settings)
        checkpoint.discard()
        programs.bar.update()

    return tuning.tune(
        prepared,
        unit.trials,
        unit.tuning_steps,
        on_trial=keep,
        every=unit.trial_every,
        kept=kept,
        keeper=checkpoint,
    ).trials


@contextmanager
def _part(label: str, bar: Shows) -> Iterator[Callable[[int], None]]:
    """One tick of the progress bar, with the step count beside it."""
    bar.set_description_str(label)
    shown = time.monotonic()

    def on_step(step: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            bar.set_description_str(f"{label} · step {step}")

    yield on_step
    bar.update()
