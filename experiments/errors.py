"""Errors that a person can act on."""

import difflib
from collections.abc import Iterable

MISSING = (
    "python -m experiments needs the package '{}', which is not installed. In a clone of the "
    "repository run `make compare`, which installs all of it, or "
    "`pip install -e '.[experiments,peers]'`."
)


class UserError(Exception):
    """Ends the command with its message as the only output."""


class Unavailable(UserError):
    """Data that this machine does not have and cannot fetch."""


def pick(names: Iterable[str], known: Iterable[str], kind: str) -> list[str]:
    """`names` in their known spelling, each once; all known ones where none is given."""
    known = list(known)
    picked = [_find(name, known, kind) for name in names] or known
    return list(dict.fromkeys(picked))


def _find(name: str, known: list[str], kind: str) -> str:
    spelled = name.strip().lower().replace("_", "-")
    if spelled in known:
        return spelled
    near = difflib.get_close_matches(spelled, known, n=3, cutoff=0.3)
    hint = f"The nearest: {', '.join(near)}." if near else f"There are: {', '.join(known)}."
    raise UserError(
        f"There is no {kind} named '{name}'. {hint} `python -m experiments list` shows them all."
    )


def whole_number(text: str | None, option: str) -> int | None:
    """A whole number of at least one, or None where nothing was given."""
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise UserError(f"{option} takes a whole number of at least 1, and '{text}' is not one.")
    return number
