"""Losses with closed-form curvature.

A loss ``ℓ(z)`` of the model's outputs ``z`` enters every Gauss-Newton matrix ``Jᵀ M J`` through its
output curvature ``M = ∇²ℓ(z)``. The losses here have closed forms of three maps:

==================  ==================================================  ======================
``curvature``       ``v ↦ M v``                                         products
``root``            ``u ↦ S u`` with ``S Sᵀ = M``                        least squares, factors
``sample``          a random ``v`` with ``E[v vᵀ] = M``                  the sampled Fisher
==================  ==================================================  ======================

and ``residual``, the ``r`` with ``S r = ∇ℓ(z)``, which turns any of them into a local
least-squares problem. :func:`total` adds losses of several outputs, such as a penalty. Any other
callable is wrapped in :class:`AnyLoss`, which uses autodiff.
"""

from secondorder.losses._base import Loss, Outputs, count_examples
from secondorder.losses._elementwise import (
    Elementwise,
    HalfSumOfSquares,
    Poisson,
    SigmoidCrossEntropy,
    SquaredError,
    Sum,
    half_sum_of_squares,
    poisson,
    sigmoid_cross_entropy,
    squared_error,
)
from secondorder.losses._generic import GENERIC_ROOT_LIMIT, AnyLoss, as_loss
from secondorder.losses._robust import (
    Robust,
    arctan,
    cauchy,
    huber,
    soft_l1,
)
from secondorder.losses._softmax import SoftmaxCrossEntropy, softmax_cross_entropy
from secondorder.losses._sums import Total, total

__all__ = [
    "GENERIC_ROOT_LIMIT",
    "AnyLoss",
    "Elementwise",
    "HalfSumOfSquares",
    "Loss",
    "Outputs",
    "Poisson",
    "Robust",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "Sum",
    "Total",
    "arctan",
    "as_loss",
    "cauchy",
    "count_examples",
    "half_sum_of_squares",
    "huber",
    "poisson",
    "sigmoid_cross_entropy",
    "soft_l1",
    "softmax_cross_entropy",
    "squared_error",
    "total",
]
