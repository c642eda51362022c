"""A page as a list of parts, said once and written twice: as HTML that opens alone, as Markdown.

Text is light Markdown: `code` and **bold**, and nothing else.
"""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.compare.tables import markdown_table

STYLE = (Path(__file__).parent / "report.css").read_text()

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


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

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
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
    body = "\n".join(map(_html, parts))
    return PAGE.format(title=html.escape(title), style=STYLE, body=body)


def to_markdown(title: str, parts: Sequence[Part], figures: str = "figures") -> str:
    """The page for a folder that reaches its pictures at `figures`."""
    return "\n\n".join([f"# {title}", *(_markdown(part, figures) for part in parts)]) + "\n"


def _html(part: Part) -> str:
    match part:
        case Heading(text):
            return f"<h2>{_marked(text)}</h2>"
        case Words(text):
            return f"<p>{_marked(text)}</p>"
        case Verdict(title, sentences):
            items = "".join(f"<li>{_marked(sentence)}</li>" for sentence in sentences)
            return f'<div class="verdict"><b>{_marked(title)}</b><ul>{items}</ul></div>'
        case Table(title=""):
            return _html_table(part)
        case Table(title=title, folded=folded):
            summary = f"<summary>{_marked(title)}</summary>"
            return f"<details{'' if folded else ' open'}>{summary}{_html_table(part)}</details>"
        case Illustration(_, alternative, caption, png):
            address = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            image = f'<img alt="{html.escape(alternative)}" src="{address}">'
            words = f"<figcaption>{_marked(caption)}</figcaption>" if caption else ""
            return f"<figure>{image}{words}</figure>"
        case Verbatim(text):
            return f"<pre>{html.escape(text)}</pre>"


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{_marked(cell)}</{kind}>' for cell in cells)}</tr>"

    head, body = row(table.header, "th"), "".join(row(cells, "td") for cells in table.rows)
    content = f"<thead>{head}</thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{content}</table></div>'


def _marked(text: str) -> str:
    """Light Markdown as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def _markdown(part: Part, figures: str) -> str:
    match part:
        case Heading(text):
            return f"## {text}"
        case Words(text):
            return text
        case Verdict(title, sentences):
            return "\n".join([f"**{title}**", "", *(f"* {sentence}" for sentence in sentences)])
        case Table(header, rows, title):
            return "\n\n".join([*([f"{title}:"] if title else []), markdown_table(header, rows)])
        case Illustration(name, alternative, caption, _):
            return "\n\n".join(
                [f"![{alternative}]({figures}/{name}.png)", *filter(None, [caption])]
            )
        case Verbatim(text):
            return f"```\n{text}\n```"
