"""Curvature sources: which matrix a method uses, and how it is estimated."""

from secondorder.curvature._axis_basis import axis_basis
from secondorder.curvature._axis_roots import axis_eigen, axis_roots
from secondorder.curvature._axis_whitened import axis_whitened
from secondorder.curvature._base import Curvature
from secondorder.curvature._block_diagonal import block_diagonal
from secondorder.curvature._empirical import empirical_diagonal
from secondorder.curvature._exact import exact, identity
from secondorder.curvature._hybrid import hybrid
from secondorder.curvature._layerwise import layerwise
from secondorder.curvature._ntk import ntk
from secondorder.curvature._preconditioned import preconditioned
from secondorder.curvature._proposed import proposed
from secondorder.curvature._quasi_newton import bfgs, lbfgs, sr1, ssbfgs, ssbroyden
from secondorder.curvature._running import Running, drift, running
from secondorder.curvature._samples import (
    Estimator,
    Sample,
    fisher_sample,
    ggn_components,
    ggn_sample,
    gradient,
    hutchinson,
    loss_sample,
    per_example,
)
from secondorder.curvature._structures import Now, Structure, diagonal
from secondorder.layers import layer_table

__all__ = [
    "Curvature",
    "Estimator",
    "Now",
    "Running",
    "Sample",
    "Structure",
    "axis_basis",
    "axis_eigen",
    "axis_roots",
    "axis_whitened",
    "bfgs",
    "diagonal",
    "drift",
    "empirical_diagonal",
    "exact",
    "fisher_sample",
    "ggn_components",
    "ggn_sample",
    "gradient",
    "hutchinson",
    "hybrid",
    "identity",
    "block_diagonal",
    "ntk",
    "layerwise",
    "layer_table",
    "lbfgs",
    "loss_sample",
    "per_example",
    "preconditioned",
    "proposed",
    "running",
    "sr1",
    "ssbfgs",
    "ssbroyden",
]
