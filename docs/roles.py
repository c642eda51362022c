"""Docstrings as mkdocstrings reads them: a role, as of `minimize`, is a link to its page."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":\w+:`~?([\w.]+)`")


class Roles(griffe.Extension):
    """Called by mkdocstrings for each object that it has read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        package, room = obj.package, obj.canonical_path.split(".")[1:2]

        def link(match: re.Match[str]) -> str:
            *_, name = match[1].split(".")
            named = [room, match[1].removeprefix(f"{package.path}.").split(".")[:-1], []]
            for rooms in named:
                inside = package[rooms] if rooms and rooms[0] in package.members else package
                public = [e for e in getattr(inside, "exports", None) or [] if str(e) == name]
                if public and (inside is package or rooms):
                    return f"[`{name}`][{inside.path}.{name}]"
            return f"`{name}`"

        # Griffe's section of examples has a plural.
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        obj.docstring.value = ROLE.sub(link, text)
