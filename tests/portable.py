"""The numerical rooms under each instruction set, OpenBLAS kernel and number of threads there is.

Run it by ``make portable``. A run has one value of each setting, and every value has a run: not
every combination of them. What the processor cannot run is named and left out.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("linalg", "operators", "solvers", "curvature", "spectrum", "trust", "methods", "contract")

# What XLA and OpenBLAS may use, by the processor's flags that it needs.
AVX2, AVX512 = {"avx2", "fma"}, {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
INSTRUCTIONS = {"AVX2": AVX2, "SSE4_2": {"sse4_2"}, "AVX512": AVX512}
KERNELS = {"Haswell": AVX2, "Nehalem": {"sse4_2"}, "SkylakeX": AVX2 | AVX512, "Zen": AVX2}
THREADS = ("1", "4")


def flags() -> set[str]:
    """What the processor can do, where the system says so: Linux on x86."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(x.split(":")[1].split()) for x in lines if x.startswith("flags")), set())


def possible(table: dict[str, set[str]], has: set[str]) -> list[str]:
    return [name for name, needs in table.items() if needs <= has]


def combinations(has: set[str]) -> Iterator[tuple[str, str, str]]:
    """``(instructions, kernel, threads)``, every possible value once or more; "" is the default."""
    settings = possible(INSTRUCTIONS, has) or [""], possible(KERNELS, has) or [""], THREADS
    for i in range(max(map(len, settings))):
        yield tuple(values[i % len(values)] for values in settings)


def environment(instructions: str, kernel: str, threads: str) -> dict[str, str]:
    chosen = dict.fromkeys(("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    if instructions:
        given = os.environ.get("XLA_FLAGS", "")
        chosen["XLA_FLAGS"] = f"{given} --xla_cpu_max_isa={instructions}".strip()
    if kernel:
        chosen["OPENBLAS_CORETYPE"] = kernel
    return chosen


def command(arguments: list[str]) -> list[str]:
    tests = [f"tests/{room}" for room in ROOMS]
    return [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *tests, *arguments]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--list", action="store_true", help="name the runs, and end")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no other run after so many"
    )
    options, arguments = parser.parse_known_args()
    has, begun, failed = flags(), time.monotonic(), []
    names = itertools.chain(INSTRUCTIONS, KERNELS)
    left_out = sorted(set(names) - {*possible(INSTRUCTIONS, has), *possible(KERNELS, has)})
    if left_out:
        print(f"This processor cannot run {', '.join(left_out)}.", flush=True)
    for number, combination in enumerate(combinations(has)):
        chosen = environment(*combination)
        named = " ".join(f"{name}={value!r}" for name, value in chosen.items())
        if options.list:
            print(named)
        elif number and time.monotonic() - begun > 60 * options.minutes:
            print(f"Left out, since the time is over: {named}", flush=True)
        else:
            print(f"{named}", flush=True)
            if subprocess.run(command(arguments), cwd=ROOT, env=os.environ | chosen).returncode:
                failed.append(named)
    for named in failed:
        print(f"Failed under {named}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
