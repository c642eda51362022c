"""The lowest versions that pyproject.toml allows of what the library needs, as constraints of pip.

Run it by ``make lowest``.
"""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def constraints(requirements: list[str]) -> list[str]:
    """``name>=version`` ↦ ``name==version``.

    Raises:
      ValueError: a requirement of another form, whose lowest version is not known.
    """
    for each in requirements:
        if each.count(">=") != 1 or any(mark in each for mark in ",;<[ "):
            raise ValueError(f"pyproject.toml requires {each!r}: write name>=version.")
    return [each.replace(">=", "==") for each in requirements]


if __name__ == "__main__":
    project = tomllib.loads(PROJECT.read_text())["project"]
    print("\n".join(constraints(project["dependencies"])))
