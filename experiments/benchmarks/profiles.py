"""How many problems each solver solves, within a factor of the best time and within a budget."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from experiments.benchmarks.solvers import Solver
from experiments.benchmarks.summary import TASK
from experiments.figures import render
from experiments.figures.profiles import Panel, profile_figure
from experiments.profiles import data_profile, performance_profile
from experiments.report import Illustration


def solver_profiles(
    file: str, title: str, runs: pd.DataFrame, solvers: Mapping[str, Solver], unit: str, budget: str
) -> Illustration:
    """Two panels: of the time, and of the column ``spent``, which counts what ``budget`` names."""

    def table(column: str) -> dict[str, np.ndarray]:
        costs = runs.assign(cost=runs[column].where(runs.solved, np.inf))
        wide = costs.pivot(index=TASK, columns="solver", values="cost")
        return {name: wide[name].to_numpy() for name in solvers}

    # A start that is the solution costs next to nothing; the axis begins at one unit.
    spent = {name: np.maximum(row, 1.0) for name, row in table("spent").items()}
    panels = (
        Panel(
            "Performance profile: time",
            "Warm time / that of the fastest solver",
            performance_profile(table("seconds")),
        ),
        Panel("Data profile: evaluations", budget, data_profile(spent)),
    )
    styles = {
        name: {"color": solver.colour, "linestyle": solver.dashes, "label": solver.label}
        for name, solver in solvers.items()
    }
    figure = profile_figure(title, "Part of the runs solved", panels, styles)
    words = f"Performance profile of warm time and data profile of {unit}, float64."
    return Illustration(file, words, "", render(figure, "png"))
