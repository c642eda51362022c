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

import math
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
        return (
            GRADIENT
            + product * diagnostics["products"]
            + VALUE * diagnostics["trial_evaluations"]
            + TRIAL
        )

    return price


def hybrid(diagnostics: Diagnostics) -> float:
    """Columns of the Hessian where the step took that, of the Jacobian where it did not."""
    return tried(HESSIAN_PRODUCT if diagnostics["newton"] else TANGENT)(diagnostics)


def searched(order: int) -> StepCost:
    """The gradient, the rows, derivatives along the path, and a value per fraction.

    A nested derivative is twice the work of what it is nested around: ``2ᵏ`` values for the k-th.
    """
    path = sum(2**k for k in range(2, order + 1)) * VALUE

    def price(diagnostics: Diagnostics) -> float:
        rows = COTANGENT * diagnostics["products"]
        return GRADIENT + rows + path + VALUE * diagnostics["trial_evaluations"] + TRIAL

    return price


def sampled(passes: float, every: int = 1) -> StepCost:
    """A gradient, and so many passes for a sample of curvature each so many steps."""
    return lambda diagnostics: GRADIENT + passes / every


def layered(sample_every: int = 1, trial_every: int | None = 1, part: int = 1) -> StepCost:
    """Gradient, two tangents for α and μ; now and then sensitivities, and a value tried."""
    curved = (2 * TANGENT + COTANGENT / 2 / sample_every) / part
    tried = VALUE / trial_every if trial_every else 0.0
    return lambda diagnostics: GRADIENT + curved + tried


def truncated(part: int = 1, sensitivities_every: float = math.inf) -> StepCost:
    """Hessian-free's, its products of a part of the batch; and sensitivities now and then."""
    alone = tried(GAUSS_NEWTON_PRODUCT / part)
    return lambda diagnostics: alone(diagnostics) + COTANGENT / 2 / part / sensitivities_every


def by_layers(diagnostics: Diagnostics) -> float:
    """Products of single layers, a quarter each, two tangents for α and μ, values and a trial."""
    layers = GAUSS_NEWTON_PRODUCT / 4 * (diagnostics["products"] - 1)
    return GRADIENT + layers + 2 * TANGENT + VALUE * diagnostics["trial_evaluations"] + TRIAL
