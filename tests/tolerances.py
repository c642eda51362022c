"""How far rounding may move a result: tolerances from the problem, not from a processor.

Each processor sums in an order of its own, so one's rounding error is no bound of another's.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np


def rounding(condition=1.0, norm=1.0, dtype: Any = "float64", c: float = 100.0) -> float:
    """``c · ε · condition · norm``, of results of this size, found at this condition number.

    A hundred operations in a row may add up, whatever their order: hence ``c`` of 100 or more.
    """
    assert c >= 100, f"got c={c}: less is the noise of one processor"
    return float(c * jnp.finfo(dtype).eps * condition * norm)


def assert_close(actual, expected, condition=1.0, norm=None, c: float = 100.0):
    """Every entry is right within ``rounding(condition, norm)``, in the precision of ``actual``.

    The norm is the largest entry expected, where none is given: a product or a solve rounds its
    small entries as coarsely as its large ones. Of entries that are found one by one,
    ``assert_allclose(..., rtol=rounding(condition))`` asks more.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    size = np.max(np.abs(expected), initial=0.0) if norm is None else norm
    tolerance = rounding(condition, size, actual.dtype, c)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def condition_of(matrix) -> float:
    """The ratio of a matrix's singular values, but for those that are zero or rounding."""
    values = np.linalg.svd(np.asarray(matrix, float), compute_uv=False)
    kept = values[values > 1e-10 * np.max(values)]
    return float(np.max(kept) / np.min(kept)) if kept.size else 1.0
