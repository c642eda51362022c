"""Layers of any JAX model: inputs and output gradients of every parametrised linear map.

    Σ_uses Σₙₜ inputs[s,n,t,:] ⊗ sensitivities[s,n,t,:] = join(gradient)[s]

:func:`read` finds the maps in the model's program, :func:`instrumented` runs the model and records
them, :func:`layer_table` prints them. No other room of the library reads jaxprs.
"""

from secondorder.layers._blocks import Block, Layout, Part
from secondorder.layers._examples import Piece, examples_of
from secondorder.layers._instrument import Instrumented, instrumented, read
from secondorder.layers._statistics import Use
from secondorder.layers._table import LayerTable, Row, layer_table

__all__ = [
    "Block",
    "LayerTable",
    "Layout",
    "Part",
    "Piece",
    "Row",
    "Instrumented",
    "Use",
    "examples_of",
    "layer_table",
    "read",
    "instrumented",
]
