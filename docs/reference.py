"""Writes `reference.md`: every public name, what it is called with, and its first sentence.

The text is that of the docstrings. `make docs` runs this, and a test fails where the page is not
what it would write.
"""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import secondorder as so

PAGE = Path(__file__).with_name("reference.md")
ROOMS = ("curvature", "solvers", "trust", "losses", "operators", "spectrum", "tree")
TITLES = {
    "interop": "Optax transformations",
    "layers": "curvature",
    "linear_systems": "operators",
    "optimize": "solving",
    "quadratic": "operators",
    "state": "Optax transformations",
    "transform": "Optax transformations",
}


def first_sentence(thing: Any) -> str:
    """The first paragraph of a docstring up to its first full stop."""
    paragraph = inspect.cleandoc(inspect.getdoc(thing) or "").split("\n\n")[0]
    text = " ".join(paragraph.split())
    text = re.sub(r":\w+:`(?:~?[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")
    sentence = re.match(r".*?(?<!et al)[.](?=\s|$)", text)
    return (sentence[0] if sentence else text).replace("|", r"\|")


def called(name: str, thing: Any) -> str:
    """`name(arguments)`, or the name alone of what is not called."""
    if not inspect.isfunction(thing):
        return f"`{name}`"
    arguments = ", ".join(inspect.signature(thing).parameters)
    return f"`{name}({arguments})`"


def table(prefix: str, names: Iterable[tuple[str, Any]]) -> list[str]:
    """The lines of a table, by name."""
    rows = [
        f"| {called(prefix + name, thing)} | {first_sentence(thing)} |" for name, thing in names
    ]
    return ["| | |", "|---|---|", *sorted(rows, key=str.lower), ""]


def _is_ours(thing: Any) -> bool:
    """A function or a class of the library, and no alias of a type."""
    known = inspect.isfunction(thing) or inspect.isclass(thing)
    return known and thing.__module__.startswith(so.__name__)


def page() -> str:
    """The whole page."""
    lines = [
        "# Public names",
        "",
        "Each with the first sentence of its docstring; `help(so.kfac)` shows the rest: shapes,",
        "scaling, errors, an example, the source. `python docs/reference.py` writes this page.",
        "",
    ]
    groups: dict[str, list[tuple[str, Any]]] = {}
    for name in so.__all__:
        thing = getattr(so, name)
        if isinstance(thing, ModuleType | str):
            continue
        room = thing.__module__.split(".")[1]
        groups.setdefault(TITLES.get(room, room), []).append((name, thing))
    for title in sorted(groups):
        lines += [f"## so: {title}", "", *table("so.", groups[title])]
    for room in ROOMS:
        module = getattr(so, room)
        names = getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
        known = [(n, getattr(module, n)) for n in names]
        own = [(n, t) for n, t in known if _is_ours(t) and getattr(so, n, None) is not t]
        lines += [f"## so.{room}", "", first_sentence(module), ""]
        lines += table(f"{room}.", own)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
