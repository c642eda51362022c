"""WHAT curvature a method uses."""

from secondorder.curvature import taps
from secondorder.curvature.base import Curvature
from secondorder.curvature.blocks import layer_blocks
from secondorder.curvature.empirical import empirical_diagonal
from secondorder.curvature.exact import exact, identity
from secondorder.curvature.grams import layer_grams
from secondorder.curvature.hybrid import hybrid
from secondorder.curvature.layers import layerwise
from secondorder.curvature.preconditioned import preconditioned
from secondorder.curvature.proposed import proposed
from secondorder.curvature.running import Running, drift, running
from secondorder.curvature.samples import (
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
from secondorder.curvature.secant import bfgs, lbfgs, sr1
from secondorder.curvature.structures import (
    Now,
    Structure,
    axis_basis,
    axis_eigen,
    axis_roots,
    diagonal,
)
from secondorder.curvature.taps import layer_table

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
    "layer_blocks",
    "layer_grams",
    "layerwise",
    "layer_table",
    "lbfgs",
    "loss_sample",
    "per_example",
    "preconditioned",
    "proposed",
    "running",
    "sr1",
    "taps",
]
