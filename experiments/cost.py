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

A dense curvature of n parameters is n products; a dense Jacobian is one tangent per parameter or
one cotangent per output, whichever are fewer. Factoring either is not counted here, for no number
of gradients stands for n³ operations: that part of the price shows in seconds only.
"""

from collections.abc import Callable, Mapping

VALUE = 1 / 3
GRADIENT = 1.0
TANGENT = 2 / 3
COTANGENT = 2 / 3
TRIAL = 1.0
GAUSS_NEWTON_PRODUCT = 4 / 3
HESSIAN_PRODUCT = 2.0

Diagnostics = Mapping[str, float]  # of one step, by the names of secondorder.diagnostics
StepCost = Callable[[Diagnostics], float]


def gradient_only(diagnostics: Diagnostics) -> float:
    """One gradient, whatever happens."""
    del diagnostics
    return GRADIENT


def line_searched(product: float = 0.0) -> StepCost:
    """Curvature products, then a search on values and gradients, whose last the next step takes."""

    def price(diagnostics: Diagnostics) -> float:
        products = diagnostics.get("products", 0.0)
        return product * products + GRADIENT * diagnostics["linesearch_steps"]

    return price


def tried(product: float) -> StepCost:
    """The gradient, curvature products, values looked at to choose the step, and its trial."""

    def price(diagnostics: Diagnostics) -> float:
        return GRADIENT + product * diagnostics["products"] + VALUE * diagnostics["looks"] + TRIAL

    return price


def searched(order: int) -> StepCost:
    """The gradient, the rows, derivatives along the path, and a value per fraction.

    A nested derivative is twice the work of what it is nested around: ``2ᵏ`` values for the k-th.
    """
    path = sum(2**k for k in range(2, order + 1)) * VALUE

    def price(diagnostics: Diagnostics) -> float:
        rows = COTANGENT * diagnostics["products"]
        return GRADIENT + rows + path + VALUE * diagnostics["looks"] + TRIAL

    return price
