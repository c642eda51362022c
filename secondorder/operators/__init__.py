"""Symmetric maps on the space of parameters: one structure per file."""

from secondorder.operators.axes import Axes, AxisEigen, AxisRoots
from secondorder.operators.base import (
    Diagonal,
    Function,
    Identity,
    Operator,
    Preconditioned,
    Scaled,
    Sum,
)
from secondorder.operators.dense import dense
from secondorder.operators.diagonal import PositiveDiagonal
from secondorder.operators.hessian import hessian, hvp
from secondorder.operators.jacobian import Jacobian, jacobian, linearize
from secondorder.operators.kronecker import Kronecker, KroneckerEigen, Leaf
from secondorder.operators.layers import LayerBlocks, apart, beside
from secondorder.operators.pullback import Pullback, empirical_fisher, fisher, ggn, ggnvp

__all__ = [
    "Axes",
    "AxisEigen",
    "AxisRoots",
    "Diagonal",
    "Function",
    "Identity",
    "Jacobian",
    "Kronecker",
    "KroneckerEigen",
    "LayerBlocks",
    "Leaf",
    "Operator",
    "PositiveDiagonal",
    "Preconditioned",
    "Pullback",
    "Scaled",
    "Sum",
    "apart",
    "beside",
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
