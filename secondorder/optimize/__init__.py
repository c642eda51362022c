"""Solves to convergence: minimize, least_squares, curve_fit."""

from secondorder.optimize._curve_fit import curve_fit
from secondorder.optimize._fit import Fit
from secondorder.optimize._least_squares import least_squares
from secondorder.optimize._minimize import minimize
from secondorder.optimize._multistart import Minima
from secondorder.optimize._profile import Profile
from secondorder.optimize._records import Evaluations, History, Status
from secondorder.optimize._solution import Solution
from secondorder.optimize._watch import Iterate

__all__ = [
    "Evaluations",
    "Fit",
    "History",
    "Iterate",
    "Minima",
    "Profile",
    "Solution",
    "Status",
    "curve_fit",
    "least_squares",
    "minimize",
]
