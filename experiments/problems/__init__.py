"""The small problems by name. A new one is a file here and a line below."""

from experiments.problem import Problem
from experiments.problems import (
    curve_fit,
    heat,
    logistic,
    matrix_factorisation,
    photo_patches,
    poisson_regression,
    published,
    quadratic,
    ridge,
    rosenbrock,
    softmax,
    tanh_network,
)

_MAIN = (logistic, softmax, tanh_network, curve_fit, rosenbrock)
_FURTHER = (ridge, poisson_regression, quadratic, matrix_factorisation, photo_patches)

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *(module.PROBLEM for module in (*_MAIN, *_FURTHER)),
        heat.BRIEF,
        *published.PUBLISHED,
    )
}

#: What a comparison runs where none is named.
MAIN: tuple[str, ...] = tuple(module.PROBLEM.name for module in _MAIN)
