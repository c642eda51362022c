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
FIGURES = 3  # of every problem: convergence, curvature, sensitivity


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

    def count_units(self) -> int:
        """How far the progress bar goes: runs, tuning trials and figures."""
        tuned = sum(bool(optimizer.search) for optimizer in self.optimizers)
        return sum(
            len(self.seeds_of(problem)) * len(self.optimizers)
            + tuned * tuning.TRIALS
            + FIGURES
            + len(problem.pictures)
            for problem in self.problems
        )

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
    files = [*library.rglob("*.py"), *here.glob("*.py"), *(here / "problems").glob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def command_line() -> str:
    return " ".join(["python", "-m", "experiments", *sys.argv[1:]])
