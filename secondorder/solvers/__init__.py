"""Solvers: minimisers of the quadratic model."""

from secondorder.solvers._apply_inverse import apply_inverse
from secondorder.solvers._base import Cost, Solver
from secondorder.solvers._block_diagonal import block_diagonal
from secondorder.solvers._box_constrained import box_constrained
from secondorder.solvers._cg import (
    Progress,
    cg,
    relative_progress,
    relative_residual,
)
from secondorder.solvers._direct import direct
from secondorder.solvers._geodesic import geodesic
from secondorder.solvers._grafted import grafted
from secondorder.solvers._hybrid import hybrid_region
from secondorder.solvers._krylov import gltr, krylov_cubic
from secondorder.solvers._matrix_sign import matrix_sign
from secondorder.solvers._momentum import momentum
from secondorder.solvers._optimal_scaling import optimal_scaling
from secondorder.solvers._preconditioners import known_inverse, nystrom
from secondorder.solvers._prox_linear import prox_linear
from secondorder.solvers._qr import qr
from secondorder.solvers._sample_space import sample_space
from secondorder.solvers._spectral import eigen, exact_cubic, exact_region
from secondorder.solvers._steihaug import steihaug
from secondorder.solvers._svd import dogleg, svd, svd_region
from secondorder.step import Step, Stop

__all__ = [
    "Cost",
    "Progress",
    "Solver",
    "Step",
    "Stop",
    "matrix_sign",
    "momentum",
    "block_diagonal",
    "cg",
    "box_constrained",
    "apply_inverse",
    "direct",
    "dogleg",
    "sample_space",
    "eigen",
    "exact_cubic",
    "exact_region",
    "geodesic",
    "gltr",
    "grafted",
    "hybrid_region",
    "known_inverse",
    "krylov_cubic",
    "optimal_scaling",
    "nystrom",
    "prox_linear",
    "qr",
    "relative_progress",
    "relative_residual",
    "steihaug",
    "svd",
    "svd_region",
]
