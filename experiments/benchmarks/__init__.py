"""Benchmarks: one file each, a function that measures and returns a report."""

from collections.abc import Callable

from experiments.benchmarks import (
    jacobian,
    least_squares,
    logistic,
    minimize,
    networks,
    nist,
    physics,
)
from experiments.benchmarks.tables import Report, Request

BENCHMARKS: dict[str, Callable[[Request], Report]] = {
    "jacobian": jacobian.run,
    "least-squares": least_squares.run,
    "logistic": logistic.run,
    "minimize": minimize.run,
    "networks": networks.run,
    "nist": nist.run,
    "physics": physics.run,
}
