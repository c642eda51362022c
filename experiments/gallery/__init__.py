"""The gallery: calculus as optimizers use it, a picture and a few checked numbers per idea."""

from experiments.gallery import (
    chain_rule,
    cost,
    derivative,
    descent,
    failures,
    hessian,
    jacobian,
    newton,
    paths,
    products,
)
from experiments.gallery.lesson import Claim, Lesson
from experiments.gallery.page import make

CHAPTERS = (
    derivative,
    descent,
    paths,
    chain_rule,
    products,
    jacobian,
    hessian,
    newton,
    failures,
    cost,
)
LESSONS: dict[str, Lesson] = {
    lesson.name: lesson for chapter in CHAPTERS for lesson in chapter.LESSONS
}

__all__ = ["LESSONS", "Claim", "Lesson", "make"]
