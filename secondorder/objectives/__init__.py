"""Objectives: a loss after a model, also in chunks, or with the curvature of another one."""

from secondorder.objectives._chunked import Chunked, chunked
from secondorder.objectives._objective import (
    Objective,
    compose,
    per_example,
    restrict,
    sum_of_squares,
)
from secondorder.objectives._with_curvature import WithCurvature, with_curvature

__all__ = [
    "Chunked",
    "Objective",
    "WithCurvature",
    "chunked",
    "compose",
    "per_example",
    "restrict",
    "sum_of_squares",
    "with_curvature",
]
