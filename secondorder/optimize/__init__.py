"""Solves to convergence: minimize, least_squares, curve_fit."""

from secondorder.optimize._curve_fit import Fit, curve_fit
from secondorder.optimize._loop import Evaluations, History, Status
from secondorder.optimize._minimize import Solution, least_squares, minimize

__all__ = [
    "Evaluations",
    "Fit",
    "History",
    "Solution",
    "Status",
    "curve_fit",
    "least_squares",
    "minimize",
]
