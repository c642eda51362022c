"""How many problems each solver solves, within a factor of the best time and within a budget."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmarks.arena import Run
from experiments.benchmarks.profiles import data_profile, performance_profile
from experiments.benchmarks.solvers import Solver
from experiments.benchmarks.summary import by_solver
from experiments.figures.style import legend_below, render, styled


@styled
def profile_figure(
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

    figure = Figure(figsize=(13.5, 6.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    _draw(left, performance_profile(table(lambda run: run.seconds)), solvers, 1.0)
    left.set(title="Performance profile: time", xlabel="Warm time / that of the fastest solver")
    left.set_ylabel("Part of the runs solved")
    # A start that is the solution costs next to nothing; the axis begins at one unit.
    spent = {name: np.maximum(row, 1.0) for name, row in table(cost).items()}
    _draw(right, data_profile(spent), solvers, 1.0)
    right.set(title="Data profile: evaluations", xlabel=budget)
    legend_below(figure, left, columns=4)
    return render(figure, "png")


def _draw(
    axes: Axes,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    solvers: Mapping[str, Solver],
    start: float,
) -> None:
    end = max([x[-1] for x, _ in curves.values() if len(x)], default=start) * 1.3
    for name, (x, y) in curves.items():
        solver = solvers[name]
        axes.step(
            [start, *x, end],
            [0.0, *y, y[-1] if len(y) else 0.0],
            where="post",
            color=solver.colour,
            linestyle=solver.dashes,
            label=solver.label,
        )
    axes.set(xscale="log", xlim=(start, end), ylim=(0, 1.02))
