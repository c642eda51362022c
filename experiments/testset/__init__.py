"""Classical test problems with published answers: small least squares, pictures, large structure.

``MGH`` holds the 35 problems of Moré, Garbow and Hillstrom, ``CLASSICAL`` functions of two
parameters (``SIZED``: some of them in any number), ``LARGE`` builders of problems of n parameters.
"""

from experiments.testset.classical import CLASSICAL, SIZED, Classical, Minimum
from experiments.testset.large import LARGE, LargeProblem
from experiments.testset.mgh import MGH
from experiments.testset.record import TestProblem, starts

__all__ = [
    "CLASSICAL",
    "LARGE",
    "MGH",
    "SIZED",
    "Classical",
    "LargeProblem",
    "Minimum",
    "TestProblem",
    "starts",
]
