"""HOW the quadratic model is minimised."""

from secondorder.solvers.averaged import averaged
from secondorder.solvers.base import Cost, Solver, Step, Stop
from secondorder.solvers.by_layer import by_layer
from secondorder.solvers.cg import Progress, cg, relative_progress, relative_residual
from secondorder.solvers.clipped import clipped
from secondorder.solvers.closed_form import closed_form
from secondorder.solvers.direct import direct
from secondorder.solvers.dual import dual
from secondorder.solvers.grafted import grafted
from secondorder.solvers.hybrid import hybrid_region
from secondorder.solvers.krylov import gltr, krylov_cubic
from secondorder.solvers.momentum import momentum
from secondorder.solvers.preconditioners import known_inverse, nystrom
from secondorder.solvers.prox_linear import prox_linear
from secondorder.solvers.qr import qr
from secondorder.solvers.spectral import eigen, exact_cubic, exact_region
from secondorder.solvers.steihaug import steihaug
from secondorder.solvers.svd import dogleg, svd, svd_region

__all__ = [
    "Cost",
    "Progress",
    "Solver",
    "Step",
    "Stop",
    "averaged",
    "by_layer",
    "cg",
    "clipped",
    "closed_form",
    "direct",
    "dogleg",
    "dual",
    "eigen",
    "exact_cubic",
    "exact_region",
    "gltr",
    "grafted",
    "hybrid_region",
    "known_inverse",
    "krylov_cubic",
    "momentum",
    "nystrom",
    "prox_linear",
    "qr",
    "relative_progress",
    "relative_residual",
    "steihaug",
    "svd",
    "svd_region",
]
