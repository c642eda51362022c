"""Classical test problems with published answers: least squares, and functions of two parameters.

``MGH`` holds the 35 problems of Moré, Garbow and Hillstrom, ``CLASSICAL`` functions of two
parameters, ``NIST`` the 27 nonlinear regressions of the Statistical Reference Datasets.
"""

from experiments.testset.classical import CLASSICAL, Classical, Minimum
from experiments.testset.mgh import MGH
from experiments.testset.nist import NIST, Regression
from experiments.testset.record import TestProblem, starts

__all__ = [
    "CLASSICAL",
    "MGH",
    "NIST",
    "Classical",
    "Minimum",
    "Regression",
    "TestProblem",
    "starts",
]
