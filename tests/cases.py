"""Cases of a parametrised test: some for each run of the tests, the others slow."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def with_slow(cases: Iterable[Any], quick: Callable[..., bool]) -> list:
    """The cases as parameters, slow but for those of which ``quick(*case)`` holds.

    What differs between a quick case and the slow ones should be something that other tests see.
    """
    as_tuples = [case if isinstance(case, tuple) else (case,) for case in cases]
    slow = lambda case: pytest.param(*case, marks=pytest.mark.slow)
    return [case if quick(*case) else slow(case) for case in as_tuples]
