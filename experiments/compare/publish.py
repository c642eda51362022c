"""The report for the documents: one Markdown page, its pictures of convergence made light."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from experiments.compare.document import Illustration, Part, to_markdown
from experiments.compare.report import TITLE
from experiments.errors import UserError

NAME = "comparison"
WIDTH, COLOURS = 1300, 256  # of a picture: legible on a page, and a fifth of the bytes
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
    try:
        for each in (folder, images):
            each.mkdir(parents=True, exist_ok=True)
            (each / ".writable").touch()
            (each / ".writable").unlink()
    except OSError as error:
        raise UserError(f"--publish {folder}: cannot be written ({error.strerror}).") from error
    return images


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
