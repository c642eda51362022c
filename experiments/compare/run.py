"""Runs a plan: unit by unit, or several side by side; and gathers what the store then holds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
from threadpoolctl import threadpool_limits

from experiments.bar import Bar
from experiments.compare.plan import Plan
from experiments.compare.side_by_side import side_by_side
from experiments.engine import Run, Status
from experiments.problem import Problem
from experiments.results import add_measure, best_value, judged_target, summarise
from experiments.store import Store
from experiments.tuning import Tuning
from experiments.unit import Programs, Unit, collect, search, train, work


@dataclass
class Results:
    """What is known of one problem so far."""

    problem: Problem
    runs: list[Run] = field(default_factory=list)
    tunings: dict[str, Tuning] = field(default_factory=dict)
    reference: float | None = None
    optimum: float = math.nan
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: list[str] = field(default_factory=list)
    """Sentences on the optimizers that do not apply."""

    def finish(self) -> None:
        """Measures all runs against f*, and summarises them."""
        known = [self.reference] if self.reference is not None else []
        self.optimum = min([best_value(self.problem, self.runs), *known])
        add_measure(self.problem, self.runs, self.optimum)
        self.table = summarise(self.problem, self.runs)

    @property
    def target(self) -> float:
        """The tightest that anybody reached."""
        return judged_target(self.problem, self.table)


class Comparison:
    """Runs a plan. However it ends, what is finished is in the store, and here in `results`."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        bar: Bar,
        jobs: int = 1,
        draw: Callable[[Results], object] = lambda results: None,
    ):
        """`draw` is called with a problem's results while the next one's programs compile."""
        self.plan, self.store, self.bar, self.jobs, self.draw = plan, store, bar, jobs, draw
        self.results: list[Results] = []
        self.failed: dict[str, str] = {}
        """Units that did not get to their end, and why."""

    def run(self) -> None:
        everything = [*self.plan.units, *self.plan.references.values()]
        self.store.begin(unit.names for unit in everything)
        try:
            self._run_lacking([unit for unit in self.plan.units if self._lacks(unit)])
        finally:
            self.results = [self._gather(problem) for problem in self.plan.problems]

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know of how they came about."""
        runs = [run for results in self.results for run in results.runs]
        sharing = [run.side_by_side for run in runs if run.side_by_side > 1]
        notes = [f"{unit} is not complete: {why}." for unit, why in self.failed.items()]
        if sharing:
            notes.append(
                f"The seconds of {len(sharing)} of {len(runs)} runs were measured with "
                f"{max(sharing)} running at a time: alone they take less."
            )
        return notes

    def _run_lacking(self, lacking: list[Unit]) -> None:
        self.bar.skip(sum(unit.parts for unit in self.plan.units if unit not in lacking))
        if self.jobs > 1:
            self.failed = side_by_side(lacking, self.plan, self.store, self.bar, self.jobs)
            lacking = []
        # Of the whole process, while threads come and go that each set it for themselves.
        with threadpool_limits(1, "blas"):
            drawn: Problem | None = None
            for problem in self.plan.problems:
                with Programs(problem, self.bar) as programs:
                    units = [unit for unit in lacking if unit.problem is problem]
                    searched = [unit for unit in units if unit.optimizer.search]
                    others = [unit for unit in units if unit not in searched]
                    # What compiles longest, listed last, begins first: or one thread waits for it.
                    programs.begin(unit.optimizer for unit in [*searched, *reversed(others)])
                    if drawn is not None:  # while this one's programs compile
                        self.draw(self._gather(drawn))
                    chosen = {
                        unit.optimizer.name: search(unit, self.store, programs) for unit in searched
                    }
                    programs.wait()
                    for unit in units:
                        train(unit, chosen.get(unit.optimizer.name, {}), self.store, programs)
                    if reference := self.plan.references.get(problem.name):
                        self._solve(reference, programs)
                drawn = problem

    def _solve(self, reference: Unit, programs: Programs) -> None:
        """f* by a run to convergence, unless one of the runs converged already."""
        if _converged(self._gather(reference.problem).runs):
            self.bar.update()
        else:
            work(reference, self.store, programs)

    def _lacks(self, unit: Unit) -> bool:
        return not collect(unit, self.store).is_all_of(unit)

    def _gather(self, problem: Problem) -> Results:
        results = Results(problem, left_out=self.plan.left_out(problem))
        for unit in self.plan.units_of(problem):
            finished = collect(unit, self.store)
            results.runs += finished.runs
            if finished.tuning:
                results.tunings[unit.optimizer.name] = finished.tuning
        reference = self.plan.references.get(problem.name)
        if reference and not _converged(results.runs):
            solved = collect(reference, self.store).runs
            results.reference = best_value(problem, solved) if solved else None
        return results


def _converged(runs: list[Run]) -> bool:
    return any(run.status == Status.CONVERGED for run in runs)
