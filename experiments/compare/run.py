"""Runs a plan: tunes what needs it, runs every optimizer, and keeps what is finished."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from experiments import engine, tuning
from experiments.compare.plan import Plan, source_fingerprint, versions
from experiments.engine import Prepared, Run, Setting
from experiments.optimizers import OPTIMIZERS, Optimizer
from experiments.problem import Problem
from experiments.records import Store
from experiments.summary import Row, add_measure, best_value, summarise
from experiments.tuning import Tuning

COMPILED_AT_ONCE = 2
REFERENCE = "newton"  # finds f* of a convex problem where it is not known beforehand


@dataclass
class Results:
    """What is known of one problem so far."""

    problem: Problem
    runs: list[Run] = field(default_factory=list)
    tunings: dict[str, Tuning] = field(default_factory=dict)
    reference: float | None = None
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Sentences on the optimizers that do not apply."""

    def finish(self) -> None:
        """Measures all runs against f*, and summarises them."""
        known = [self.reference] if self.reference is not None else []
        optimum = min([best_value(self.problem, self.runs), *known])
        add_measure(self.problem, self.runs, optimum)
        self.rows = summarise(self.problem, self.runs)


class Bench:
    """One problem; what it needs is loaded and compiled before the first clock starts."""

    def __init__(self, problem: Problem, bar: tqdm):
        self.problem, self.bar = problem, bar
        self.setting: Setting | None = None
        self.prepared: dict[str, Prepared] = {}

    def prepare(self, optimizers: Sequence[Optimizer]) -> None:
        """Compiles several side by side: one compilation keeps little more than one core busy."""
        if not optimizers:
            return
        self.bar.set_description_str(f"{self.problem.name} · compiling")
        self.setting = setting = self.setting or engine.set_up(self.problem)
        # The outer numerics holds what is set for the whole process while the threads come and go.
        with engine.numerics(self.problem), ThreadPoolExecutor(COMPILED_AT_ONCE) as pool:
            prepared = pool.map(lambda optimizer: engine.prepare(setting, optimizer), optimizers)
            self.prepared |= {each.optimizer.name: each for each in prepared}

    def of(self, optimizer: Optimizer) -> Prepared:
        if optimizer.name not in self.prepared:
            self.prepare([optimizer])
        return self.prepared[optimizer.name]


class Comparison:
    """Runs a plan. An interruption leaves the finished runs, here and in the store."""

    def __init__(self, plan: Plan, store: Store, bar: tqdm):
        self.plan, self.store, self.bar = plan, store, bar
        self.results: list[Results] = []
        self.source = source_fingerprint()

    def run(self) -> None:
        for problem in self.plan.problems:
            results = Results(problem, left_out=self.plan.left_out(problem))
            self.results.append(results)
            bench, optimizers = Bench(problem, self.bar), self.plan.optimizers_of(problem)
            bench.prepare([each for each in optimizers if self._lacks(problem, each)])
            for optimizer in optimizers:
                self._run_optimizer(bench, optimizer, results)
            if problem.measure == "suboptimality" and problem.optimum is None:
                results.reference = self._reference(bench, results)

    def _run_optimizer(self, bench: Bench, optimizer: Optimizer, results: Results) -> None:
        problem, steps = bench.problem, self.plan.steps_of(bench.problem, optimizer)
        settings = self._settings(problem, optimizer)
        chosen: dict[str, float] = {}
        if optimizer.search:
            found = self._tune(bench, optimizer, steps, settings)
            results.tunings[optimizer.name] = found
            chosen = {found.hyperparameter: found.best.setting}
        for seed in self.plan.seeds_of(problem):
            finished = self.store.load_run(problem.name, optimizer.name, seed, settings)
            if finished is None:
                prepared = bench.of(optimizer)
                with self._unit(f"{problem.name} · {optimizer.name} · seed {seed}") as on_step:
                    finished = engine.run(prepared, seed, steps, chosen, on_step=on_step)
                self.store.save_run(finished, settings)
            else:
                self.bar.update()
            results.runs.append(finished)

    def _tune(
        self, bench: Bench, optimizer: Optimizer, steps: int, settings: Mapping[str, Any]
    ) -> Tuning:
        problem = bench.problem
        found = self.store.load_tuning(problem.name, optimizer.name, settings)
        if found is None:
            prepared = bench.of(optimizer)
            self.bar.set_description_str(f"{problem.name} · {optimizer.name} · tuning")
            found = tuning.tune(
                prepared,
                steps=min(steps, problem.tuning_steps),
                on_trial=lambda trial: self.bar.update(),
            )
            self.store.save_tuning(problem.name, optimizer.name, found, settings)
        else:
            self.bar.update(len(found.trials))
        return found

    def _reference(self, bench: Bench, results: Results) -> float | None:
        """f* by a run to convergence, unless one of the runs converged already."""
        if any(run.status == engine.Status.CONVERGED for run in results.runs):
            return None
        problem, optimizer = bench.problem, OPTIMIZERS[REFERENCE]
        steps = problem.steps[optimizer.step_class]
        settings = self._settings(problem, optimizer) | {"steps": steps, "for": "reference"}
        found = self.store.load_run(problem.name, "reference", 0, settings)
        if found is None:
            found = engine.run(bench.of(optimizer), 0, steps)
            self.store.save_run(dataclasses.replace(found, optimizer="reference"), settings)
        return best_value(problem, [found])

    def _lacks(self, problem: Problem, optimizer: Optimizer) -> bool:
        """Whether anything of it is still to be run."""
        settings = self._settings(problem, optimizer)
        untuned = bool(optimizer.search) and (
            self.store.load_tuning(problem.name, optimizer.name, settings) is None
        )
        return untuned or any(
            self.store.load_run(problem.name, optimizer.name, seed, settings) is None
            for seed in self.plan.seeds_of(problem)
        )

    def _settings(self, problem: Problem, optimizer: Optimizer) -> dict[str, Any]:
        """A finished run is used again where all of this is unchanged."""
        return {
            "problem": problem.name,
            "optimizer": optimizer.name,
            "steps": self.plan.steps_of(problem, optimizer),
            "source": self.source,
            "versions": versions(),
        }

    @contextmanager
    def _unit(self, label: str) -> Iterator[Callable[[int], None]]:
        """One tick of the progress bar, with the step count beside it."""
        self.bar.set_description_str(label)
        shown = time.monotonic()

        def on_step(step: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                self.bar.set_description_str(f"{label} · step {step}")

        yield on_step
        self.bar.update()
