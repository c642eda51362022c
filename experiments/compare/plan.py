"""What a comparison was asked for, and what it was run with."""

import hashlib
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import secondorder as so
from experiments import tuning
from experiments.optimizers import Optimizer
from experiments.problem import Problem

SEEDS = 3


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

    def count_units(self) -> int:
        """How far the progress bar goes: runs, tuning trials and figures."""

        def units(problem: Problem) -> int:
            running = self.optimizers_of(problem)
            tuned = sum(bool(optimizer.search) for optimizer in running)
            runs = len(self.seeds_of(problem)) * len(running)
            return runs + tuned * tuning.TRIALS + 1 + len(problem.pictures)

        return sum(map(units, self.problems))

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


def versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "optax", "numpy", "scikit-learn", "matplotlib")
    return {"secondorder": so.__version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in names
    }


def source_fingerprint() -> str:
    """Changes with any line that a run depends on: no run outlives the code that made it."""
    library, here = Path(str(so.__file__)).parent, Path(__file__).parents[1]
    files = [*library.rglob("*.py"), *here.glob("*.py")]
    files += [file for room in ("problems", "testset") for file in (here / room).glob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def command_line() -> str:
    return " ".join(["python", "-m", "experiments", *sys.argv[1:]])
