"""Figures: the same colour, line style and marker for an optimizer everywhere."""

from experiments.figures.convergence import convergence_figure
from experiments.figures.curvature import curvature_figure
from experiments.figures.curve import fitted_curve
from experiments.figures.modes import eigenmodes
from experiments.figures.sensitivity import sensitivity_figure
from experiments.figures.style import line, render, render_both
from experiments.figures.valley import paths_on_surface, paths_over_contours

__all__ = [
    "convergence_figure",
    "curvature_figure",
    "eigenmodes",
    "fitted_curve",
    "line",
    "paths_on_surface",
    "paths_over_contours",
    "render",
    "render_both",
    "sensitivity_figure",
]
