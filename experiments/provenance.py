"""What made a run: the releases of what it uses, and the code."""

import hashlib
import platform
from importlib import metadata
from pathlib import Path

import secondorder as so


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
