"""Pages from Jinja's templates, which escape what they show as HTML."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined


def fill(template: Path, **content: Any) -> str:
    """The template with this content."""
    # Not escaped by the ending of a name: Markdown and HTML are made of the same parts.
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.from_string(template.read_text()).render(content)
