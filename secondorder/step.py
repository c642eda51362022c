"""The step that a solver proposes, and why a computation ended."""

from __future__ import annotations

import enum


class Reason(enum.IntEnum):
    """Why a computation ended: an integer, so that ``jit`` carries it, with a sentence."""

    sentence: str

    def __new__(cls, value: int, sentence: str):
        member = int.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member
