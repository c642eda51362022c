"""HOW FAR a step is trusted."""

from secondorder.trust.base import Trial, Trust, TrustState
from secondorder.trust.policies import cubic, damping, fixed, martens, nielsen, radius, searched

__all__ = [
    "Trial",
    "Trust",
    "TrustState",
    "cubic",
    "damping",
    "fixed",
    "martens",
    "nielsen",
    "radius",
    "searched",
]
