"""How many problems each solver solves, within a factor of the best time and within a budget."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.benchmarks.arena import Run
from experiments.benchmarks.solvers import Solver
from experiments.benchmarks.summary import by_solver
from experiments.figures import render
from experiments.figures.profiles import Panel, profile_figure
from experiments.profiles import data_profile, performance_profile


def solver_profiles(
    title: str,
    runs: Sequence[Run],
    solvers: Mapping[str, Solver],
    budget: str,
    cost: Callable[[Run], float],
) -> bytes:
    """Two panels as PNG; ``budget`` names what ``cost`` counts."""

    def table(of: Callable[[Run], float]) -> dict[str, np.ndarray]:
        return {
            name: np.array([of(run) if run.solved else np.inf for run in group])
            for name, group in by_solver(runs, solvers).items()
        }

    # A start that is the solution costs next to nothing; the axis begins at one unit.
    spent = {name: np.maximum(row, 1.0) for name, row in table(cost).items()}
    panels = (
        Panel(
            "Performance profile: time",
            "Warm time / that of the fastest solver",
            performance_profile(table(lambda run: run.seconds)),
        ),
        Panel("Data profile: evaluations", budget, data_profile(spent)),
    )
    styles = {
        name: {"color": solver.colour, "linestyle": solver.dashes, "label": solver.label}
        for name, solver in solvers.items()
    }
    return render(profile_figure(title, "Part of the runs solved", panels, styles), "png")
