"""Tables of a benchmark as Markdown, with the command and the versions that made them."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

import secondorder as so
from experiments.errors import UserError


class Table(NamedTuple):
    """A titled table of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", _row(self.header), _row(["---"] * len(self.header))]
        return "\n".join([*lines, *map(_row, self.rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def page(name: str, tables: Sequence[Table]) -> str:
    """A page that says how it was made."""
    versions = (
        f"`python -m experiments bench {name}`; secondorder {so.__version__}, JAX "
        f"{jax.__version__}, Python {platform.python_version()}, on "
        f"{jax.devices()[0].platform.upper()}. Ratios are of medians of interleaved repetitions, "
        "compilation apart."
    )
    return "\n\n".join([f"# Benchmark: {name}", versions, *(t.markdown() for t in tables)]) + "\n"


def save(text: str, folder: Path, name: str) -> Path:
    """The page as a file, or a sentence where the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.md"
        file.write_text(text)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be written ({error.strerror}).") from error
    return file
