"""What a benchmark is asked for, what it found, and its page, which says how it was made."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import pandas as pd

import secondorder as so
from experiments.report import Heading, Illustration, Part, Table, Words, to_markdown
from experiments.results import long
from experiments.store import Store, make_writable


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
    """Where the results are kept, and finished runs, by a benchmark whose runs are long."""
    fresh: bool = False
    """Whether to run again what is kept."""


@dataclass(frozen=True)
class Report:
    """What a benchmark found."""

    tables: Mapping[str, pd.DataFrame]
    """By title; of text."""
    words: Sequence[str] = ()
    """Paragraphs before the tables: what was measured, and how."""
    figures: Sequence[Illustration] = ()
    measured: pd.DataFrame | None = None
    """What the tables are made of, in long form, where that is more than they show."""

    @property
    def results(self) -> pd.DataFrame:
        """One number or word a row."""
        if self.measured is not None:
            return self.measured
        shown = [
            table.rename(columns={table.columns[0]: "case"}).assign(table=title)
            for title, table in self.tables.items()
        ]
        return pd.concat([long(table, ["table", "case"]) for table in shown])


def publish(
    report: Report, command: str, name: str, request: Request, out: Path
) -> tuple[str, Path]:
    """Writes the results and the page, its figures in ``../images``; the page's text and place."""
    Store(request.folder).save_table("results", report.results)
    images = out.parent / "images"
    make_writable(out, *[images] * bool(report.figures))
    for figure in report.figures:
        (images / f"{figure.name}.png").write_bytes(figure.png)
    text = to_markdown(f"Benchmark: {name}", list(_parts(report, command)), "../images")
    file = out / f"{name}.md"
    file.write_text(text)
    return text, file


def _parts(report: Report, command: str) -> list[Part]:
    made = (
        f"`{command}`; secondorder {so.__version__}, JAX {jax.__version__}, Python "
        f"{platform.python_version()}, on {jax.devices()[0].platform.upper()}. Ratios are of "
        "medians of interleaved repetitions, compilation apart."
    )
    tables = [part for title, t in report.tables.items() for part in (Heading(title), Table(t))]
    return [Words(made), *map(Words, report.words), *report.figures, *tables]


def times(found: float) -> str:
    """A ratio, as text."""
    return f"{found:.3g}×"
