"""The problems by name. A new one is a file here and a line below."""

from experiments.problem import Problem
from experiments.problems import curve_fit, logistic, rosenbrock, softmax, tanh_network

PROBLEMS: dict[str, Problem] = {
    module.PROBLEM.name: module.PROBLEM
    for module in (logistic, softmax, tanh_network, curve_fit, rosenbrock)
}
