"""Instruments: stochastic estimators of spectral quantities, for matrix-free operators.

Each takes ``(op, like, key, …)``: an operator on trees shaped like ``like``, and the key of its
random probes; each returns a value, its standard error and the number of products. Probes are drawn
one by one, so memory does not grow with their number.
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
