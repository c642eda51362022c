"""Times that can be compared: compiled apart, interleaved, medians; and the memory of a program."""

import statistics
import time
from collections.abc import Callable, Mapping
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
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repetitions):
        for name, (program, arguments) in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            seconds[name].append(time.perf_counter() - start)
    return {
        name: Timing(
            statistics.median(seconds[name]),
            compile_seconds[name],
            compiled[name][0].memory_analysis().temp_size_in_bytes,
            outputs[name],
        )
        for name in programs
    }
