"""HOW the quadratic model is minimised."""

from secondorder.solvers.base import Solver, Step, Stop
from secondorder.solvers.cg import Progress, cg, relative_progress, relative_residual
from secondorder.solvers.diagonal import diagonal
from secondorder.solvers.direct import direct
from secondorder.solvers.qr import qr, svd
from secondorder.solvers.steihaug import steihaug

__all__ = [
    "Progress",
    "Solver",
    "Step",
    "Stop",
    "cg",
    "diagonal",
    "direct",
    "qr",
    "relative_progress",
    "relative_residual",
    "steihaug",
    "svd",
]
