"""What a comparison was asked for, and what it was run with."""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments import tuning
from experiments.optimizer import Optimizer
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem
from experiments.provenance import source_fingerprint
from experiments.unit import Unit

SEEDS = 3
FIGURES = 3  # of every problem: convergence, curvature, sensitivity
REFERENCE = "newton"  # finds f* of a convex problem where it is not known beforehand


@dataclass(frozen=True)
class Plan:
    """Every chosen problem with every chosen optimizer."""

    problems: Sequence[Problem]
    optimizers: Sequence[Optimizer]
    seeds: int = SEEDS
    steps: int | None = None

    def seeds_of(self, problem: Problem) -> range:
        """A start that is not random needs one seed."""
        return range(self.seeds if problem.random_start else 1)

    def steps_of(self, problem: Problem, optimizer: Optimizer) -> int:
        allowed = problem.steps[optimizer.step_class]
        return allowed if self.steps is None else min(allowed, self.steps)

    def optimizers_of(self, problem: Problem) -> list[Optimizer]:
        """Those that can do anything on it."""
        return [each for each in self.optimizers if not each.left_out(problem)]

    def left_out(self, problem: Problem) -> list[str]:
        """A sentence for each reason why an optimizer is not run on a problem."""
        reasons: dict[str, list[str]] = {}
        for optimizer in self.optimizers:
            if why := optimizer.left_out(problem):
                reasons.setdefault(why, []).append(optimizer.label)
        return [f"Left out: {'; '.join(labels)} ({why})." for why, labels in reasons.items()]

    @functools.cached_property
    def units(self) -> list[Unit]:
        return [unit for problem in self.problems for unit in self.units_of(problem)]

    def units_of(self, problem: Problem) -> list[Unit]:
        """Every optimizer that can do anything on one problem."""
        return [
            Unit(
                problem,
                optimizer,
                self.steps_of(problem, optimizer),
                self.seeds_of(problem),
                self._source,
            )
            for optimizer in self.optimizers_of(problem)
        ]

    @functools.cached_property
    def references(self) -> dict[str, Unit]:
        """By problem, the run that finds f* where that is not known and no other run converges."""
        optimizer = dataclasses.replace(OPTIMIZERS[REFERENCE], name="reference")
        return {
            problem.name: Unit(
                problem, optimizer, problem.steps[optimizer.step_class], range(1), self._source
            )
            for problem in self.problems
            if problem.measure == "suboptimality" and problem.optimum is None
        }

    @functools.cached_property
    def _source(self) -> str:
        return source_fingerprint()

    def count_parts(self) -> int:
        """How far the progress bar goes: runs, tuning trials and figures."""
        runs = sum(unit.parts for unit in [*self.units, *self.references.values()])
        return runs + sum(FIGURES + len(problem.pictures) for problem in self.problems)

    def tuning_budget(self) -> str:
        """One line that says what the search for learning rates may cost."""
        tuned = [optimizer.label for optimizer in self.optimizers if optimizer.search]
        if not tuned:
            return "Nothing is tuned: every chosen optimizer runs at its defaults."
        steps = ", ".join(f"{problem.name} {problem.tuning_steps:,}" for problem in self.problems)
        return (
            f"Tuned: {'; '.join(tuned)}. Budget for each, on each problem: "
            f"{tuning.TRIALS} trials of at most so many steps: {steps}."
        )


def command_line() -> str:
    return " ".join(["python", "-m", "experiments", *sys.argv[1:]])
