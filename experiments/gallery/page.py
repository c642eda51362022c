"""Draws lessons into a folder, and one HTML file of all that opens without a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.bar import Bar
from experiments.errors import UserError
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


class Made(NamedTuple):
    """The page; beside it lie the pictures and what moves."""

    page: Path
    failed: list[str]
    """One sentence for each checked number that is not what it should be."""


def make(lessons: Sequence[Lesson], folder: Path) -> Made:
    """Computes, checks and draws, one lesson after another, then writes the page of all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"'{folder}' cannot be made a folder: {error.strerror}.") from error
    shown = []
    with Bar(len(lessons)) as bar:
        for lesson in lessons:
            bar.set_description_str(lesson.name)
            shown.append(_draw(lesson, folder))
            bar.update()
        bar.set_description_str("done")
    page = folder / "gallery.html"
    page.write_text(gallery(shown))
    return Made(page, [str(claim) for one in shown for claim in one.claims if not claim.holds])


def _draw(lesson: Lesson, folder: Path) -> Shown:
    numbers = lesson.numbers()
    images = lesson.image(numbers)
    if lesson.animate is not None:
        images["gif"] = lesson.animate(numbers)
    for kind, content in images.items():
        (folder / f"{lesson.name}.{kind}").write_bytes(content)
    return Shown(lesson, images["png"], images.get("gif"), lesson.claims(numbers))
