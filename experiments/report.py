"""A page as a list of parts, written as HTML that opens alone and as Markdown by one template each.

Text is light Markdown: `code` and **bold**, and nothing else. A table is a frame of text.
"""

import html
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from experiments.templates import fill

HERE = Path(__file__).parent


class Heading(NamedTuple):
    text: str


class Words(NamedTuple):
    text: str


class Verdict(NamedTuple):
    """What the reader came for, and what else is to be said of it."""

    title: str
    sentences: Sequence[str]


class Table(NamedTuple):
    """Words to the left in the first and the last column, numbers to the right in the others."""

    frame: pd.DataFrame
    title: str = ""
    folded: bool = False
    """Whether HTML shows it only where it is asked for."""


class Illustration(NamedTuple):
    """One picture: a file beside the Markdown page, and inside the HTML one."""

    name: str
    alternative: str
    caption: str
    png: bytes


class Verbatim(NamedTuple):
    text: str


Part = Heading | Words | Verdict | Table | Illustration | Verbatim


def to_html(title: str, parts: Sequence[Part]) -> str:
    """The page in one file."""
    style = (HERE / "report.css").read_text()
    return _page("html", title, parts, style=style, marked=_marked, table=_html_table)


def to_markdown(title: str, parts: Sequence[Part], figures: str = "figures") -> str:
    """The page for a folder that reaches its pictures at `figures`."""
    return _page("md", title, parts, figures=figures, table=markdown_table)


def _page(kind: str, title: str, parts: Iterable[Part], **given: Any) -> str:
    named = [(type(part).__name__, part) for part in parts]
    return fill(HERE / f"report.{kind}.j2", title=title, parts=named, **given)


def markdown_table(frame: pd.DataFrame) -> str:
    return _aligned(_cells(frame, lambda text: text.replace("|", r"\|")), "pipe")


def text_table(frame: pd.DataFrame) -> str:
    """For the terminal."""
    return _aligned(frame, "simple")


def latex_table(frame: pd.DataFrame, caption: str) -> str:
    """One float; it needs the package booktabs, and no other."""
    frame = _cells(frame, lambda text: "–" if text == "-" else text)
    columns = "l" + "r" * (frame.shape[1] - 2) + "l"
    tex = frame.to_latex(
        index=False, escape=True, caption=_latex(caption), column_format=columns, position="ht"
    )
    return _in_ascii(tex)


def _aligned(frame: pd.DataFrame, kind: str) -> str:
    if frame.empty:
        return ""
    sides = ["left", *["right"] * (frame.shape[1] - 2), "left"][: frame.shape[1]]
    return frame.to_markdown(index=False, tablefmt=kind, colalign=sides, disable_numparse=True)


def _cells(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """All text of a frame otherwise, its header as well."""
    changed = frame.map(change)
    changed.columns = [change(name) for name in frame.columns]
    return changed


def _html_table(frame: pd.DataFrame) -> str:
    with pd.option_context("display.max_colwidth", None):
        return _cells(frame, _marked).to_html(index=False, escape=False, border=0)


def _marked(text: str) -> str:
    """Light Markdown as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


LATEX = {"–": "--", "≤": r"$\le$", "·": r"$\cdot$", "×": r"$\times$", "²": "$^2$", "κ": r"$\kappa$"}


def _latex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def _in_ascii(text: str) -> str:
    return text.translate(str.maketrans(LATEX))
