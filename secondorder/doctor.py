"""Report of the installation and a self-check: ``python -m secondorder.doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from secondorder.optimize._least_squares import least_squares

PACKAGES = ("secondorder", "jax", "jaxlib", "optax", "numpy")


def installation() -> Iterator[tuple[str, str]]:
    """Names and values of the installation: versions, devices, threads, precision."""
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in PACKAGES:
        yield name, _version(name)
    devices = jax.devices()
    yield "devices", f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})"
    yield "processor cores", str(os.cpu_count())
    yield "float64", "on" if jnp.result_type(float) == jnp.float64 else "off (jax_enable_x64)"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed, imported from a folder"


def self_check() -> Iterator[tuple[str, bool]]:
    """Names and outcomes of a fit with a known answer, in both precisions."""
    for bits in (32, 64):
        with jax.enable_x64(bits == 64):
            yield f"least_squares in float{bits}", _fit_is_right()


def _fit_is_right() -> bool:
    """Rosenbrock's function as a sum of squares: the minimum is at (1, 1)."""
    residual = lambda p: jnp.stack([10 * (p[1] - p[0] ** 2), 1 - p[0]])
    found = least_squares(residual, jnp.array([-1.2, 1.0]))
    error = jnp.max(jnp.abs(found.params - 1))
    return bool(found.success) and bool(error < 1e3 * jnp.finfo(error.dtype).eps ** 0.5)


def main() -> int:
    """Print the report; 0 where every check holds, else 1."""
    for name, value in installation():
        print(f"{name:16} {value}")
    start, sound = time.perf_counter(), True
    for name, holds in self_check():
        print(f"{name:28} {'ok' if holds else 'WRONG'}")
        sound &= holds
    print(f"checked in {time.perf_counter() - start:.1f} s, compilation included")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
