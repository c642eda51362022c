"""WHAT curvature a method uses."""

from secondorder.curvature.base import Curvature
from secondorder.curvature.exact import exact, identity

__all__ = ["Curvature", "exact", "identity"]
