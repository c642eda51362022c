"""A lesson: one idea in plain words, its numbers, its picture, and what of it is checked."""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

import secondorder as so
from experiments.figures.style import render, styled

Numbers = dict[str, Any]

#: What is said of each lesson, by its name: chapter, title, formula and words.
WORDS: dict[str, dict[str, str]] = tomllib.loads(
    (Path(__file__).parent / "lessons.toml").read_text(encoding="utf-8")
)

SOURCE_HEIGHT = 0.2  # inches that the line under a picture takes


class Claim(NamedTuple):
    """One number of a picture and what it has to be; a test checks it."""

    sentence: str
    found: float
    expected: float
    tolerance: float
    """Absolute. Where the expected number is one of several orders, take logarithms."""

    @property
    def holds(self) -> bool:
        return bool(abs(self.found - self.expected) <= self.tolerance)

    def __str__(self) -> str:
        wanted = f"{self.expected:.6g} ± {self.tolerance:.2g}"
        return f"{self.sentence}: found {self.found:.6g}, expected {wanted}"


@dataclass(frozen=True)
class Lesson:
    """One idea. All its numbers come from `compute`, by JAX and by this library."""

    name: str
    compute: Callable[[], Numbers]
    draw: Callable[[Numbers], Figure]
    claims: Callable[[Numbers], Sequence[Claim]]
    animate: Callable[[Numbers], bytes] | None = None
    """A GIF of it, where it moves."""
    clocked: bool = False
    """Whether seconds are among its numbers, so that a busy machine changes them."""

    chapter = property(lambda self: WORDS[self.name]["chapter"])
    title = property(lambda self: WORDS[self.name]["title"])
    formula = property(lambda self: WORDS[self.name]["formula"])
    words = property(lambda self: " ".join(WORDS[self.name]["words"].split()))

    def numbers(self) -> Numbers:
        """All that is drawn, in float64."""
        with jax.enable_x64(True):
            return _in_numpy(self.compute())

    def image(self, numbers: Numbers) -> dict[str, bytes]:
        """The picture as PNG and as SVG, with the line that says where its numbers are from."""
        figure = self.draw(numbers)
        _sign(figure, self)
        return {kind: render(figure, kind) for kind in ("png", "svg")}


def _in_numpy(x: Any) -> Any:
    """JAX's arrays as NumPy's, in dictionaries that keep their order."""
    if isinstance(x, dict):
        return {key: _in_numpy(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_in_numpy(value) for value in x]
    return np.asarray(x) if isinstance(x, jax.Array) else x


@styled
def _sign(figure: Figure, lesson: Lesson) -> None:
    height = SOURCE_HEIGHT / figure.get_size_inches()[1]
    engine: Any = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, height, 1, 1 - height), wspace=0.04)
    text = (
        f"Source: python -m experiments pictures {lesson.name}; "
        f"every number computed by JAX {jax.__version__} and secondorder {so.__version__}"
    )
    figure.text(0.995, 0.006, text, ha="right", va="bottom", fontsize=8.5, color="#666666")
