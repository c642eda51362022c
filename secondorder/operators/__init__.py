"""Curvature operators: symmetric linear maps on the parameters, one structure per file."""

from secondorder.operators._axes import Axes, CutLeaf, Leaf
from secondorder.operators._base import (
    Diagonal,
    Function,
    Identity,
    Operator,
    Preconditioned,
    Scaled,
    Sum,
)
from secondorder.operators._block_diagonal import BlockDiagonal, by_leaf, by_module
from secondorder.operators._dense import dense
from secondorder.operators._dense_jacobian import jacobian
from secondorder.operators._diagonal import PositiveDiagonal
from secondorder.operators._gauss_newton import (
    GaussNewton,
    empirical_fisher,
    fisher,
    ggn,
    ggnvp,
)
from secondorder.operators._hessian import hessian, hvp
from secondorder.operators._jacobian import Jacobian, linearize
from secondorder.operators._kronecker import Kronecker, KroneckerEigen

__all__ = [
    "Axes",
    "CutLeaf",
    "Diagonal",
    "Function",
    "Identity",
    "Jacobian",
    "Kronecker",
    "KroneckerEigen",
    "BlockDiagonal",
    "Leaf",
    "Operator",
    "PositiveDiagonal",
    "Preconditioned",
    "GaussNewton",
    "Scaled",
    "Sum",
    "by_leaf",
    "by_module",
    "dense",
    "empirical_fisher",
    "fisher",
    "ggn",
    "ggnvp",
    "hessian",
    "hvp",
    "jacobian",
    "linearize",
]
