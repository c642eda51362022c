"""What the seconds were measured on; no names of hosts, users or folders."""

import os
import platform
from pathlib import Path

import jax

PROCESSORS = Path("/proc/cpuinfo")


def machine() -> dict[str, str]:
    """The processor, its cores and memory, the system, and what JAX computes on."""
    found = {"processor": processor(), "cores": str(_cores())}
    if (memory := _memory()) is not None:
        found["memory"] = f"{memory:.0f} GiB"
    devices = dict.fromkeys(device.device_kind for device in jax.devices())
    system = f"{platform.system()} on {platform.machine()}"
    return found | {"system": system, "devices": ", ".join(devices)}


def processor() -> str:
    """Its name as the maker gave it, where the system tells."""
    if PROCESSORS.exists():
        for line in PROCESSORS.read_text().splitlines():
            name, _, words = line.partition(":")
            if name.strip() == "model name" and words.strip():
                return words.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None
