"""The progress of a solve on the screen: a panel of rich, or lines of text."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from typing import Any

import numpy as np

PANEL, LINES = 0.1, 1.0  # seconds between two reports
SHARE = 0.1  # of the time so far that passes before the next line, at least


class Display:
    """Shows the last iterate that it was called with, some times a second.

    A panel where rich is installed and the errors' stream is a terminal or a notebook; else lines,
    ever fewer of them.

    Args:
      user: name of the caller.
      limit: the largest number of steps.
    """

    def __init__(self, user: str, limit: int):
        self.user, self.limit = user, limit
        self.rows = [("", "compiling")]
        self.live: Any = None
        self.rich: Any = None
        self.first, self.steps, self.begun, self.next = 0, 0, 0.0, 0.0

    def __call__(self, iterate: Any) -> None:
        now, steps = time.monotonic(), int(iterate.steps)
        if not self.begun or steps < self.steps:  # another solve by the same program
            self.first, self.begun = steps, now
        self.steps = steps
        self.rows = self._rows(iterate, now - self.begun)
        if now >= self.next:
            self._show()
            pause = LINES + SHARE * (now - self.begun) if self.live is None else PANEL
            self.next = now + pause

    def open(self) -> None:
        """Show the panel, where there can be one."""
        self.rich, self.live = _panel()
        if self.live is not None:
            self.live.start()
            self._show()

    def end(self, message: str) -> None:
        """Show the last point and how the solve ended."""
        self.rows = [*self.rows, ("end", message)]
        self._show()

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()

    def _rows(self, iterate: Any, seconds: float) -> list[tuple[str, str]]:
        done = self.steps - self.first
        clock = f"{seconds:.1f} s"
        if done and seconds:
            left = max(0, self.limit - self.steps) * seconds / done
            clock += f", {done / seconds:.3g} steps/s, at most {_duration(left)} left"
        rows = [
            ("steps", f"{self.steps} of at most {self.limit}"),
            ("value", f"{float(iterate.value):.8g}"),
            ("gradient", f"{float(iterate.grad_norm):.3g}"),
        ]
        if np.isfinite(iterate.scale):
            rows.append(("λ, Δ or σ", f"{float(iterate.scale):.3g}"))
        return [*rows, ("time", clock)]

    def _show(self) -> None:
        if self.live is None:
            text = ", ".join(f"{name} {value}" for name, value in self.rows)
            sys.stderr.write(f"{self.user}: {text}\n")
            sys.stderr.flush()
            return
        grid = self.rich["table"].Table.grid(padding=(0, 2))
        for row in self.rows:
            grid.add_row(*map(self.rich["text"].Text, row))
        title = self.rich["text"].Text(self.user)
        self.live.update(self.rich["panel"].Panel(grid, title=title, expand=False), refresh=True)


def _panel() -> tuple[Any, Any]:
    """The modules of rich and its live display; ``None`` where lines must do."""
    try:  # only here, since it is optional
        rich = {
            n: importlib.import_module(f"rich.{n}") for n in "console live panel table text".split()
        }
    except ImportError:
        return None, None
    console = rich["console"].Console(stderr=True)
    drawn = not console.is_jupyter or importlib.util.find_spec("ipywidgets")
    if not (console.is_terminal and drawn):
        return None, None
    return rich, rich["live"].Live(console=console, auto_refresh=False)


def _duration(seconds: float) -> str:
    """Seconds as ``12 s``, ``3:05`` or ``2:10:00``."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if minutes == 0:
        return f"{whole} s"
    clock = f"{whole % 60:02d}"
    return f"{hours}:{minutes % 60:02d}:{clock}" if hours else f"{minutes}:{clock}"
