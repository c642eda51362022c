"""Classical test problems with published answers: least squares, and functions of two parameters.

``MGH`` holds the 35 problems of Moré, Garbow and Hillstrom, ``CLASSICAL`` functions of two
parameters.
"""

from experiments.testset.classical import CLASSICAL, Classical, Minimum
from experiments.testset.mgh import MGH
from experiments.testset.record import TestProblem, starts

__all__ = ["CLASSICAL", "MGH", "Classical", "Minimum", "TestProblem", "starts"]
