"""Taps: the inputs and output sensitivities of every parametrised linear map of any JAX model.

    Σ_uses Σₙₜ inputs[s,n,t,:] ⊗ sensitivities[s,n,t,:] = join(gradient)[s]

The only room of the library that reads jaxprs. :func:`read` finds the maps, :func:`tapped` runs the
model with them recorded, :func:`layer_table` tells a person what was found.
"""

from secondorder.layers._blocks import Block, Layout, Part
from secondorder.layers._instrument import Instrumented, instrumented, read
from secondorder.layers._statistics import Use
from secondorder.layers._table import LayerTable, Row, layer_table

__all__ = [
    "Block",
    "LayerTable",
    "Layout",
    "Part",
    "Row",
    "Instrumented",
    "Use",
    "layer_table",
    "read",
    "instrumented",
]
