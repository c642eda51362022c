"""On how many problems each optimizer comes within a factor of the cheapest."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.compare.tables import UNITS, Summarised, judged_target
from experiments.figures import line
from experiments.figures.profiles import Panel, profile_figure
from experiments.figures.style import rows_of
from experiments.optimizers import OPTIMIZERS
from experiments.profiles import performance_profile
from experiments.summary import COSTS

ENOUGH = 20  # of fewer problems a distribution says little
CAPTION = (
    "The part of the problems on which an optimizer reached the tightest target that anybody did, "
    "for at most so many times the least cost. At the left edge: how often it is the best; at the "
    "right: how often it gets there at all (Dolan and Moré 2002)."
)


def costs(all_results: Sequence[Summarised], name: str) -> dict[str, np.ndarray]:
    """By optimizer, one number for each problem; infinite where it did not get there."""
    found: dict[str, np.ndarray] = {}
    for i, results in enumerate(all_results):
        for row in results.rows:
            everywhere = found.setdefault(row.optimizer, np.full(len(all_results), np.inf))
            everywhere[i] = getattr(row.reached[judged_target(results)], name)
    return found


def profiles(all_results: Sequence[Summarised]) -> Figure | None:
    """A performance profile for each measure of cost; None where there are too few problems."""
    if len(all_results) < ENOUGH:
        return None
    panels = [
        Panel(
            UNITS[name].capitalize(),
            f"{UNITS[name].capitalize()} / the fewest",
            performance_profile(costs(all_results, name)),
        )
        for name in COSTS
    ]
    styles = {
        name: line(name) | {"label": optimizer.label, "marker": None}
        for name, optimizer in OPTIMIZERS.items()
    }
    return profile_figure(
        f"Performance profiles of {len(all_results)} problems",
        "Part of the problems",
        panels,
        styles,
        rows_of(name for name in OPTIMIZERS if any(name in panel.curves for panel in panels)),
    )
