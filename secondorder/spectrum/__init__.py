"""Instruments: what a person wants to know of a matrix that is never formed.

Each takes ``(op, like, key, …)``: an operator on trees shaped like ``like``, and the key of its
random probes; each answers with a value, its standard error and the products it used. Probes are
drawn one by one, so memory does not grow with their number.
"""

from secondorder.spectrum._density import Density, logdet, spectral_density
from secondorder.spectrum._extremes import Eigenpairs, condition_number, top_eigenpairs
from secondorder.spectrum._probes import Reading, diagonal, trace

__all__ = [
    "Density",
    "Eigenpairs",
    "Reading",
    "condition_number",
    "diagonal",
    "logdet",
    "spectral_density",
    "top_eigenpairs",
    "trace",
]
