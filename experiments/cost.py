"""What a step costs, in gradient-equivalents, counted from the algorithm.

In a dense layer every part of a derivative is some number of matrix multiplications of one size:

    part                                               multiplications   gradient-equivalents
    value: W x                                         1                 1/3
    value and gradient: the value, then Wᵀ δ and δ xᵀ  3                 1
    tangent of the outputs, value stored: Ẇ x, W ẋ     2                 2/3
    cotangent of the parameters, value stored          2                 2/3
    value and its derivative along a step              1 + 2             1
    Gauss-Newton product: a tangent, then a cotangent  2 + 2             4/3
    Hessian product: the tangents of all 3 above       6                 2

A dense curvature of n parameters is n products; a dense Jacobian is one tangent per parameter or one
cotangent per output, whichever are fewer. Factoring either is not counted here, for no number of
gradients stands for n³ operations: that part of the price shows in seconds only.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

VALUE = 1 / 3
GRADIENT = 1.0
TANGENT = 2 / 3
COTANGENT = 2 / 3
TRIAL = 1.0
GAUSS_NEWTON_PRODUCT = 4 / 3
HESSIAN_PRODUCT = 2.0


class Sizes(NamedTuple):
    """What a cost may depend on besides the step's own counts."""

    parameters: int
    outputs: int


Diagnostics = Mapping[str, float]
StepCost = Callable[[Diagnostics, Sizes], float]


def gradient_only(diagnostics: Diagnostics, sizes: Sizes) -> float:
    """One gradient, whatever happens."""
    del diagnostics, sizes
    return GRADIENT


def search_only(diagnostics: Diagnostics, sizes: Sizes) -> float:
    """A line search that evaluates value and gradient, and hands its last gradient to the next step."""
    del sizes
    return GRADIENT * diagnostics["linesearch_steps"]
