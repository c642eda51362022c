"""On how many problems each optimizer comes within a factor of the cheapest."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.compare.run import Results
from experiments.figures import line
from experiments.figures.profiles import Panel, profile_figure
from experiments.figures.style import rows_of
from experiments.optimizers import OPTIMIZERS
from experiments.profiles import performance_profile
from experiments.results import COSTS

ENOUGH = 20  # of fewer problems a distribution says little
CAPTION = (
    "The part of the problems on which an optimizer reached the tightest target that anybody did, "
    "for at most so many times the least cost. At the left edge: how often it is the best; at the "
    "right: how often it gets there at all (Dolan and Moré 2002)."
)


def costs(all_results: Sequence[Results], cost: str) -> dict[str, np.ndarray]:
    """By optimizer, one number for each problem; infinite where it did not get there."""
    tables = [each.table[each.table.target == each.target] for each in all_results]
    wide = pd.concat(tables).pivot(index="problem", columns="optimizer", values=cost)
    return {str(name): column.fillna(np.inf).to_numpy() for name, column in wide.items()}


def profiles(all_results: Sequence[Results]) -> Figure | None:
    """A performance profile for each measure of cost; None where there are too few problems."""
    if len(all_results) < ENOUGH:
        return None
    panels = [
        Panel(
            words.capitalize(),
            f"{words.capitalize()} / the fewest",
            performance_profile(costs(all_results, cost)),
        )
        for cost, words in COSTS.items()
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
