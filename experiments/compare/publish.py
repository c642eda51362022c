"""The report for the documents: one Markdown page, its pictures of convergence made light."""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageColor

from experiments.compare.page import TITLE
from experiments.optimizers import OPTIMIZERS
from experiments.report import Illustration, Part, to_markdown
from experiments.store import make_writable

NAME = "comparison"
WIDTH, COLOURS = 1300, 256  # of a picture: legible on a page, and a fifth of the bytes
SHADES = [k / 9 for k in range(1, 10)]
KEPT = ("convergence", "profiles")


def publish(parts: Sequence[Part], folder: Path) -> Path:
    """Writes ``comparison.md``, and what it shows into ``images/comparison`` beside the folder."""
    images = images_of(folder)
    kept = [part for part in parts if not isinstance(part, Illustration) or _is_kept(part)]
    shown = {f"{part.name}.png": part.png for part in kept if isinstance(part, Illustration)}
    for name, png in shown.items():
        (images / name).write_bytes(light(png))
    page = folder / f"{NAME}.md"
    page.write_text(to_markdown(TITLE, kept, f"../images/{NAME}"))
    for old in images.glob("*.png"):
        if old.name not in shown:
            old.unlink()
    return page


def images_of(folder: Path) -> Path:
    """Where the page's pictures go; both folders are there then, or a sentence says why not."""
    images = folder.resolve().parent / "images" / NAME
    make_writable(folder, images)
    return images


def _is_kept(illustration: Illustration) -> bool:
    return illustration.name.endswith(KEPT)


def light(png: bytes) -> bytes:
    """The picture at most so wide, in the colours of the optimizers."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDTH, 10 * WIDTH))
    made = io.BytesIO()
    # A palette found from the picture would blend the colours of thin lines with one another.
    picture.quantize(palette=_palette(), dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return made.getvalue()


@functools.cache
def _palette() -> Image.Image:
    """Greys, and every optimizer's colour in shades up to white, as its edges and bands have."""
    colours = [ImageColor.getrgb(optimizer.look.colour) for optimizer in OPTIMIZERS.values()]
    blends = [[_towards_white(part, shade) for part in c] for c in colours for shade in SHADES]
    steps = COLOURS - len(blends)
    greys = [[round(255 * k / (steps - 1))] * 3 for k in range(steps)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in [*greys, *blends] for part in colour])
    return palette


def _towards_white(part: int, shade: float) -> int:
    return round(255 - shade * (255 - part))
