"""Benchmarks: one file each, a function that measures and returns tables."""

from experiments.benchmarks import jacobian

BENCHMARKS = {"jacobian": jacobian.run}
