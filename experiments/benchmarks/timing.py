"""Times that can be compared: compiled apart, interleaved, medians; and the memory of a program."""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
    """What one program costs.

    Attributes:
      seconds: the median of the warm repetitions.
      compile_seconds: tracing and compiling, once.
      temp_bytes: peak temporary memory, as the compiler planned it.
      output: what it returned.
    """

    seconds: float
    compile_seconds: float
    temp_bytes: int
    output: Any


def race(programs: Mapping[str, tuple[Callable, tuple]], repetitions: int = 9) -> dict[str, Timing]:
    """Times programs against each other, a round of all after a round of all.

    The machine's load drifts; interleaved rounds let it drift for everyone alike.
    """
    compiled: dict[str, tuple[Any, tuple]] = {}
    compile_seconds, outputs = {}, {}
    for name, (function, arguments) in programs.items():
        start = time.perf_counter()
        compiled[name] = (jax.jit(function).lower(*arguments).compile(), arguments)
        compile_seconds[name] = time.perf_counter() - start
        outputs[name] = jax.block_until_ready(compiled[name][0](*arguments))
    calls = {name: partial(program, *given) for name, (program, given) in compiled.items()}
    seconds = interleaved(calls, repetitions)
    return {
        name: Timing(
            seconds[name],
            compile_seconds[name],
            compiled[name][0].memory_analysis().temp_size_in_bytes,
            outputs[name],
        )
        for name in programs
    }


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median seconds of each call, a round of all after a round of all."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}
