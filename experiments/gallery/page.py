"""The gallery as one HTML file that opens without a network: pictures, words and script inside."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.gallery.lesson import Claim, Lesson
from experiments.templates import fill

HERE = Path(__file__).parent


class Shown(NamedTuple):
    """A lesson with its picture drawn and its numbers checked."""

    lesson: Lesson
    png: bytes
    gif: bytes | None
    claims: Sequence[Claim]


def gallery(shown: Sequence[Shown]) -> str:
    """The whole page: a tab for each chapter."""
    chapters: dict[str, list[Shown]] = {}
    for one in shown:
        chapters.setdefault(one.lesson.chapter, []).append(one)
    style, script = ((HERE / f"gallery.{end}").read_text() for end in ("css", "js"))
    return fill(HERE / "gallery.html.j2", chapters=chapters, style=style, script=script)
