"""WHAT curvature a method uses."""

from secondorder.curvature.base import Curvature
from secondorder.curvature.exact import exact, identity
from secondorder.curvature.hybrid import hybrid
from secondorder.curvature.secant import bfgs, lbfgs, sr1

__all__ = ["Curvature", "bfgs", "exact", "hybrid", "identity", "lbfgs", "sr1"]
