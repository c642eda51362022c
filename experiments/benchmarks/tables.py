"""A benchmark's page in Markdown, with the command and the versions that made it."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Request:
    """What to run of a benchmark."""

    problems: Sequence[str] = ()
    """By name; none for all."""
    solvers: Sequence[str] = ()
    """By name; none for all."""
    quick: bool = False
    """Whether to leave out what takes long."""
    lines: bool = False
    """Whether to print each run."""
    folder: Path = Path("results/bench/runs")
    """Where finished runs are kept, by a benchmark whose runs are long."""
    fresh: bool = False
    """Whether to run again what is kept."""


@dataclass(frozen=True)
class Report:
    """What a benchmark found."""

    tables: Sequence[Table]
    words: Sequence[str] = ()
    """Paragraphs before the tables: what was measured, and how."""
    figures: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    """By name of the file: a sentence and the PNG."""


def page(command: str, name: str, report: Report) -> str:
    """A page that says how it was made."""
    versions = (
        f"`{command}`; secondorder {so.__version__}, JAX "
        f"{jax.__version__}, Python {platform.python_version()}, on "
        f"{jax.devices()[0].platform.upper()}. Ratios are of medians of interleaved repetitions, "
        "compilation apart."
    )
    pictures = [f"![{words}](../images/{file})" for file, (words, _) in report.figures.items()]
    parts = [f"# Benchmark: {name}", versions, *report.words, *pictures]
    return "\n\n".join([*parts, *(t.markdown() for t in report.tables)]) + "\n"


def save(text: str, folder: Path, name: str, report: Report) -> Path:
    """The page as a file, its figures in ``../images``; or a sentence where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.md"
        file.write_text(text)
        for picture, (_, content) in report.figures.items():
            images = folder.parent / "images"
            images.mkdir(exist_ok=True)
            (images / picture).write_bytes(content)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be written ({error.strerror}).") from error
    return file
