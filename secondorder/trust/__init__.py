"""Trust policies: acceptance of a step, and the scalar of the next solve."""

from secondorder.trust._attempt import Attempt
from secondorder.trust._base import Last, Trial, Trust, TrustState
from secondorder.trust._damping import damping, fixed, line_search, martens, nielsen
from secondorder.trust._regions import cubic, probed, radius

__all__ = [
    "Attempt",
    "Last",
    "Trial",
    "Trust",
    "TrustState",
    "cubic",
    "damping",
    "fixed",
    "martens",
    "nielsen",
    "probed",
    "radius",
    "line_search",
]
