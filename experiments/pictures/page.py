"""The gallery as one HTML file that opens without a network: pictures, words and script inside."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.pictures.lesson import Claim, Lesson

HERE = Path(__file__).parent

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Calculus for optimizers: a gallery</title>
<style>
{style}</style>
</head>
<body>
<h1>Calculus for optimizers, a picture at a time</h1>
<p class="note">Every number was computed by JAX and secondorder when this page was made, and the
numbers under a picture were compared with what theory says. The two panels with a slider compute
in this page.</p>
<nav role="tablist">{tabs}</nav>
{chapters}
<script>
{script}</script>
</body>
</html>
"""

# What a reader can move; each is drawn by the script into its own <svg>.
PLAYGROUNDS = {
    "secant": """
<div class="play" id="play-secant"><h3>Move the second point</h3>
<label>h = <output></output><input type="range" min="-3" max="0.4" step="0.01" value="0.3"
aria-label="logarithm of h"></label>
<svg viewBox="0 0 640 360" role="img" aria-label="a curve, its tangent and a secant"></svg>
<p aria-live="polite"></p></div>""",
    "step-size": """
<div class="play" id="play-step"><h3>Choose the learning rate</h3>
<label>α = <output data-for="rate"></output><input name="rate" type="range" min="0.002" max="0.12"
step="0.001" value="0.03" aria-label="learning rate"></label>
<label>momentum = <output data-for="momentum"></output><input name="momentum" type="range" min="0"
max="0.95" step="0.01" value="0" aria-label="momentum"></label>
<svg viewBox="0 0 640 300" role="img" aria-label="contours of a quadratic and a path"></svg>
<p aria-live="polite"></p></div>""",
}


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
    tabs, sections = [], []
    for i, (title, lessons) in enumerate(chapters.items()):
        chosen = str(i == 0).lower()
        tabs.append(
            f'<button role="tab" id="tab-{i}" aria-controls="chapter-{i}" '
            f'aria-selected="{chosen}">{html.escape(title)}</button>'
        )
        content = "\n".join(map(_article, lessons))
        sections.append(
            f'<section role="tabpanel" id="chapter-{i}" aria-labelledby="tab-{i}">\n'
            f"<h2>{html.escape(title)}</h2>\n{content}\n</section>"
        )
    return PAGE.format(
        style=(HERE / "gallery.css").read_text(),
        tabs="".join(tabs),
        chapters="\n".join(sections),
        script=(HERE / "gallery.js").read_text(),
    )


def _article(shown: Shown) -> str:
    lesson = shown.lesson
    title = html.escape(lesson.title)
    parts = [
        f'<article id="{lesson.name}"><h3>{title}</h3>',
        f'<p class="formula">{html.escape(lesson.formula)}</p>',
        f"<p>{html.escape(lesson.words)}</p>",
        _image(shown.png, "png", lesson.title),
    ]
    if shown.gif is not None:
        parts.append(_image(shown.gif, "gif", f"{lesson.title}, moving"))
    parts += [PLAYGROUNDS.get(lesson.name, ""), _checked(shown.claims), "</article>"]
    return "\n".join(part for part in parts if part)


def _image(content: bytes, kind: str, alternative: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(alternative)}" src="data:image/{kind};base64,{data}">'


def _checked(claims: Sequence[Claim]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(claim.sentence)}</td><td>{claim.found:.6g}</td>"
        f"<td>{claim.expected:.6g} ± {claim.tolerance:.2g}</td>"
        f"<td>{'yes' if claim.holds else '<b>no</b>'}</td></tr>"
        for claim in claims
    )
    head = "<tr><th>checked number</th><th>found</th><th>expected</th><th>holds</th></tr>"
    return f"<details><summary>{len(claims)} checked numbers</summary><table>{head}{rows}</table></details>"  # noqa: E501
