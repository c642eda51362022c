"""The progress bar of long commands, with the time that remains."""

from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

BAR = "{percentage:3.0f}% |{bar:30}| {elapsed}, {remaining} to go  {desc}"


class Shows(Protocol):
    """What shows progress: a bar, or a process that tells another one's bar."""

    def set_description_str(self, desc: str) -> None: ...
    def update(self, n: int = 1) -> object: ...
    def skip(self, parts: int) -> None: ...


class Bar(tqdm):
    """Parts done, of all; the remaining time is that of the parts to come at the mean pace so far.

    A part that was found finished took no time and says nothing about the pace: `skip` it.
    """

    skipped = 0

    def __init__(self, total: int | None = None, **options: Any):
        # tqdm's own smoothing would take the latest parts for typical, and skipped ones for parts.
        super().__init__(total=total, bar_format=BAR, smoothing=0, **options)

    def skip(self, parts: int) -> None:
        self.skipped += parts
        if not self.disable:
            self.initial += parts
            self.update(parts)

    def used_again(self, folder: Path) -> str:
        """A sentence on the parts that were found finished."""
        return f"Used again from {folder}: {self.skipped} finished parts (--fresh runs all)."
