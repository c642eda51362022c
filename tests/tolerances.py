"""How far rounding may move a result: tolerances from the problem, not from a processor.

Each processor sums in an order of its own, so one's rounding error is no bound of another's.
"""

import jax.numpy as jnp


def rounding(condition=1.0, norm=1.0, dtype="float64", c: float = 100.0) -> float:
    """``c · ε · condition · norm``, of results of this size, found at this condition number.

    A hundred operations in a row may add up, whatever their order: hence ``c`` of 100 or more.
    """
    assert c >= 100, f"got c={c}: less is the noise of one processor"
    return float(c * jnp.finfo(dtype).eps * condition * norm)
