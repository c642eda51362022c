"""The report for the documents: one Markdown page, with the pictures of convergence made light."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from experiments.compare.document import Illustration, Part, to_markdown
from experiments.compare.report import TITLE

NAME = "comparison"
WIDTH, COLOURS = 1300, 256  # of a picture: legible on a page, and a fifth of the bytes
KEPT = ("convergence", "profiles")


def publish(parts: Sequence[Part], folder: Path) -> Path:
    """Writes ``comparison.md``, and what it shows into ``images/comparison`` beside the folder."""
    images = folder.parent / "images" / NAME
    images.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    kept = [part for part in parts if not isinstance(part, Illustration) or _is_kept(part)]
    for old in images.glob("*.png"):
        old.unlink()
    for part in kept:
        if isinstance(part, Illustration):
            (images / f"{part.name}.png").write_bytes(light(part.png))
    page = folder / f"{NAME}.md"
    page.write_text(to_markdown(TITLE, kept, f"../images/{NAME}"))
    return page


def _is_kept(illustration: Illustration) -> bool:
    return illustration.name.endswith(KEPT)


def light(png: bytes) -> bytes:
    """The picture at most so wide, with as many colours as lines of a chart need."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDTH, 10 * WIDTH))
    made = io.BytesIO()
    # Octrees keep what is rare: a thin line's colour, where the median cut blends it with others.
    kept = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    kept.save(made, "PNG", optimize=True)
    return made.getvalue()
