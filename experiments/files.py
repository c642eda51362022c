"""Files that an interruption cannot tear, and that tell when something else did."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.errors import UserError


def made_writable(*folders: Path) -> None:
    """Makes the folders, or says in a sentence why nothing can be written there."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.write_text("")
            probe.unlink(missing_ok=True)  # another process may probe, too
        except OSError as error:
            raise UserError(f"Cannot write results to '{folder}': {error.strerror}.") from error


def write(path: Path, content: str | bytes) -> Path:
    """Writes a whole file or nothing: an interruption leaves the old one."""
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(draft, path)
    except OSError as error:
        raise UserError(f"Cannot write '{path}': {error.strerror}.") from error
    return path


def seal(content: Mapping[str, Any]) -> bytes:
    """As JSON, whose first entry is a checksum of all that follows."""
    return _sealed(json.dumps(content)[1:].encode())


def _sealed(rest: bytes) -> bytes:
    return b'{"checksum": "%s", %s' % (hashlib.sha256(rest).hexdigest().encode(), rest)


def unseal(path: Path, belongs_to: Path | None = None) -> dict[str, Any] | None:
    """What was sealed in a file; None where there is none, or where a single byte of it differs.

    The latter is set aside, or all of what it belongs to.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror}.") from error
    rest = text[len(_sealed(b"")) :]
    if text != _sealed(rest):
        set_aside(belongs_to or path, f"{path.name} is not what was written")
        return None
    return json.loads(b"{" + rest)


def set_aside(path: Path, why: str) -> None:
    """Renames a file or a folder that cannot be trusted, and says so."""
    aside = path.with_name(path.name + ".corrupt")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    words = f"{path} is corrupt: {why}. It is set aside as {aside.name}, and run again."
    tqdm.write(words, file=sys.stderr)


def as_read(content: Any) -> Any:
    """What JSON makes of it: tuples are lists, keys are text."""
    return json.loads(json.dumps(content))
