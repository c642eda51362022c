"""Performance profiles (Dolan and Moré 2002) and data profiles (Moré and Wild 2009)."""

from collections.abc import Mapping

import numpy as np


def performance_profile(
    costs: Mapping[str, np.ndarray],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each solver the ratios τ to the best, and the part of problems solved within them.

    Args:
      costs: by solver, one number per problem; infinite where it was not solved. A problem that
        nobody solved counts as one.
    """
    table = np.array(list(costs.values()), float)
    best = table.min(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(np.isfinite(table), table / best, np.inf)
    ratios[(table == best) & np.isfinite(table)] = 1.0  # also where the best costs nothing
    return {name: _steps(row) for name, row in zip(costs, ratios, strict=True)}


def data_profile(costs: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each solver budgets, and the part of problems solved within them."""
    return {name: _steps(np.asarray(row, float)) for name, row in costs.items()}


def _steps(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a distribution function rises, and how high."""
    at = np.sort(row[np.isfinite(row)])
    return at, np.arange(1, len(at) + 1) / len(row)
