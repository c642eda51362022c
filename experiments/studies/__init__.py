"""Experiments of a page: a folder each, with `run.py`, a `# %%` script, and what it printed.

A new one is a new folder. `run.py` begins with a cell of words whose first line is the title, and
runs as a whole or cell by cell in any editor that knows such cells.
"""

import contextlib
import io
import runpy
import sys
from pathlib import Path

from experiments.studies.race import Limits, at_most, limited, race, show

__all__ = [
    "BEGIN",
    "END",
    "FOLDERS",
    "Limits",
    "at_most",
    "play",
    "publish",
    "race",
    "show",
    "title",
]

FOLDERS = {
    script.parent.name: script.parent for script in sorted(Path(__file__).parent.glob("*/run.py"))
}
BEGIN, END = "<!-- what the command printed -->", "<!-- until here -->"


def title(folder: Path) -> str:
    """The first line of the words that `run.py` begins with."""
    return (folder / "run.py").read_text().splitlines()[1].removeprefix("# # ")


class _Both(io.StringIO):
    """Keeps what is printed, and prints it."""

    def __init__(self):
        super().__init__()
        self.shown = sys.stdout

    def write(self, text: str) -> int:
        self.shown.write(text)
        return super().write(text)


def play(folder: Path, limits: Limits) -> str:
    """Runs the script; what it printed."""
    with limited(limits), contextlib.redirect_stdout(_Both()) as printed:
        runpy.run_path(str(folder / "run.py"), run_name="__main__")
    return printed.getvalue()


def publish(folder: Path, printed: str) -> Path:
    """Writes what was printed into the folder's README, between its two marks."""
    page = folder / "README.md"
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{printed.strip()}\n\n{END}{after}")
    return page
