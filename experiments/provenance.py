"""What made a run: the releases of what it uses, the code, and the machine."""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

import jax

import secondorder as so

PROCESSORS = Path("/proc/cpuinfo")


def versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "optax", "numpy", "scikit-learn", "matplotlib")
    return {"secondorder": so.__version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in names
    }


def source_fingerprint(*further: Path) -> str:
    """Changes with any line that a run depends on: no run outlives the code that made it.

    Args:
      further: files besides the library, the engine and the problems.
    """
    library, here = Path(str(so.__file__)).parent, Path(__file__).parent
    files = [*library.rglob("*.py"), *here.glob("*.py"), *further]
    files += [file for room in ("problems", "testset") for file in (here / room).glob("*.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def machine() -> dict[str, str]:
    """The processor, its cores and memory, the system, and what JAX computes on; no names of hosts,
    users or folders."""
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
