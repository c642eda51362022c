"""Figures: the same colour, line style and marker for an optimizer everywhere."""

from experiments.figures.convergence import convergence_figure
from experiments.figures.curve import fitted_curve
from experiments.figures.modes import eigenmodes
from experiments.figures.style import render
from experiments.figures.valley import paths_on_surface, paths_over_contours

__all__ = [
    "convergence_figure",
    "eigenmodes",
    "fitted_curve",
    "paths_on_surface",
    "paths_over_contours",
    "render",
]
