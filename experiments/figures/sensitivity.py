"""How much depends on the hyperparameter: what became of every trial of its search."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.style import decades, legend_below, line, styled
from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem
from experiments.tuning import Trial, Tuning

FAILED: dict[str, Any] = {"marker": "X", "markersize": 10, "markeredgecolor": "white"}
CHOSEN: dict[str, Any] = {"marker": "o", "markersize": 17, "markerfacecolor": "none"}
NEAREST = 1e-16  # of the largest suboptimality: what is nearer to zero is drawn here

Height = Callable[[Trial], float]


@styled
def sensitivity_figure(
    problem: Problem, tunings: Mapping[str, Tuning], optimum: float
) -> Figure | None:
    """A line for each tuned optimizer: the final value, and the steps where it converged."""
    if not tunings:
        return None
    trials = [trial for found in tunings.values() for trial in found.trials]
    converged = any(trial.converged for trial in trials)
    figure = Figure(figsize=(13.5 if converged else 8.5, 5.4), layout="constrained")
    panels = figure.subplots(1, 2 if converged else 1, squeeze=False)[0]
    figure.suptitle(problem.title, fontsize=14, fontweight="bold")
    _draw(panels[0], tunings, _height(problem, trials, optimum))
    known = problem.measure == "suboptimality"
    label = r"Suboptimality  $f - f^\star$" if known else "Training loss"
    panels[0].set(title="Where each trial of the search ended", ylabel=label)
    decades(panels[0], "y")
    if converged:
        _draw(panels[1], tunings, lambda trial: trial.steps if trial.converged else math.nan)
        panels[1].set_ylim(0, 1.15 * max(trial.steps for trial in trials if trial.converged))
        panels[1].set(title="How soon, where it converged", ylabel="Steps")
    names = " or ".join(dict.fromkeys(found.hyperparameter for found in tunings.values()))
    for axes in panels:
        axes.set(xlabel=names.replace("_", " ").capitalize())
        decades(axes, "x")
        axes.set_xlim(0.5 * min(t.setting for t in trials), 2.0 * max(t.setting for t in trials))
    _mark_failures(panels[0], tunings)
    panels[0].plot([], [], linestyle="none", color="#555555", label="Chosen", **CHOSEN)
    legend_below(figure, columns=4 if converged else 2)
    return figure


def _height(problem: Problem, trials: Sequence[Trial], optimum: float) -> Height:
    """What a trial's value is drawn as; zeros would be off a logarithmic axis."""
    if problem.measure != "suboptimality":
        return lambda trial: trial.value if math.isfinite(trial.value) else math.nan
    finite = [trial.value for trial in trials if math.isfinite(trial.value)]
    least = NEAREST * max([abs(optimum), *(value - optimum for value in finite)])
    return lambda t: max(t.value - optimum, least) if math.isfinite(t.value) else math.nan


def _draw(axes: Axes, tunings: Mapping[str, Tuning], height: Height) -> None:
    for name, found in tunings.items():
        trials = sorted(found.trials, key=lambda trial: trial.setting)
        at, heights = [trial.setting for trial in trials], [height(trial) for trial in trials]
        axes.plot(at, heights, label=OPTIMIZERS[name].label, **line(name))
        colour, best = OPTIMIZERS[name].look.colour, found.best
        axes.plot(best.setting, height(best), color=colour, markeredgewidth=2, **CHOSEN)


def _mark_failures(axes: Axes, tunings: Mapping[str, Tuning]) -> None:
    """A cross at the upper edge for each trial that diverged."""
    label = "Diverged"
    for name, found in tunings.items():
        at = [trial.setting for trial in found.trials if not math.isfinite(trial.value)]
        if at:
            edge = axes.get_xaxis_transform()
            look = {"color": OPTIMIZERS[name].look.colour, "label": label, "linestyle": "none"}
            axes.plot(
                at, [1.0] * len(at), transform=edge, clip_on=False, zorder=5, **look, **FAILED
            )
            label = "_"  # one entry of the legend stands for all
