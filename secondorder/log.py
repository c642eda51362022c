"""Logs of a run: one row of numbers a step, in a CSV or JSONL file, or as events of TensorBoard.

Each row is written at once, so that a killed run loses none; a log of an earlier run goes on.
"""

from __future__ import annotations

import abc
import csv as comma_separated
import enum
import importlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = ["Log", "csv", "jsonl", "tensorboard"]


class Log(abc.ABC):
    """An open log: ``log(step, **values)`` writes a row, and ``with`` closes the log.

    Values are single numbers, booleans, strings or members of an enumeration, from NumPy, JAX or
    Python; in JSONL also arrays. A number of a low precision is written with the digits that it
    has. A step that is logged twice, as after a resumption, has two rows.

    Raises:
      TypeError: a value of another kind, such as one that is traced: log outside of ``jit`` what
        the step returns.
      ValueError: an array where single numbers are needed, a value named ``step``, a closed log.

    Example:
      >>> import jax.numpy as jnp, pathlib, secondorder as so, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
      >>> with so.log.csv(path) as log:
      ...     log(0, loss=jnp.float32(0.1), accepted=True)
      >>> path.read_text().split()
      ['step,loss,accepted', '0,0.1,True']
    """

    takes_arrays = False

    def __call__(self, step: Any, /, **values: Any) -> None:
        if "step" in values:
            raise ValueError("A log got a value named step beside the step; give it another name.")
        row = {"step": step, **values}
        self._write({name: self._value(name, x) for name, x in row.items()})

    def _value(self, name: str, x: Any) -> Any:
        found = _plain(name, x)
        if isinstance(found, list) and not self.takes_arrays:
            raise ValueError(
                f"A log got {name} of the shape {np.shape(found)}. Pass single numbers, such as "
                "its mean; so.log.jsonl also takes arrays."
            )
        return found

    @abc.abstractmethod
    def _write(self, row: dict[str, Any]) -> None: ...

    @abc.abstractmethod
    def close(self) -> None:
        """Close the log; a second time does nothing."""

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def csv(path: str | os.PathLike) -> Log:
    """A log in a CSV file, with a column for each name; an existing one goes on at its end.

    A value that a row lacks is an empty cell. A new name after the first row adds a column: the
    file is then written again, and replaced whole.

    Args:
      path: the file; its folder is made where there is none.

    Raises:
      ValueError: the file exists and is no log.

    Example:
      >>> import pathlib, secondorder as so, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
      >>> for resumed in (False, True):
      ...     with so.log.csv(path) as log:
      ...         log(1 + resumed, loss=0.5)
      >>> path.read_text().split()
      ['step,loss', '1,0.5', '2,0.5']
    """
    return _Csv(path)


def jsonl(path: str | os.PathLike) -> Log:
    """A log with a JSON object a line; an existing one goes on at its end.

    Numbers that are not finite are ``NaN`` and ``Infinity``, as Python and pandas read and write
    them.

    Args:
      path: the file; its folder is made where there is none.

    Raises:
      ValueError: the file exists and is no log.

    Example:
      >>> import jax.numpy as jnp, pathlib, secondorder as so, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.jsonl"
      >>> with so.log.jsonl(path) as log:
      ...     log(3, loss=0.5, rates=jnp.array([0.1, 0.2]))
      >>> path.read_text()
      '{"step": 3, "loss": 0.5, "rates": [0.1, 0.2]}\\n'
    """
    return _Jsonl(path)


def tensorboard(folder: str | os.PathLike) -> Log:
    """A log for TensorBoard, written by tensorboardX; text where a value is a string.

    Args:
      folder: the folder of the run. A second log there writes a file beside the first, and
        TensorBoard shows both as one run.

    Raises:
      ImportError: tensorboardX is not installed.

    Example:
      >>> import secondorder as so, tempfile
      >>> try:
      ...     with so.log.tensorboard(tempfile.mkdtemp()) as log:
      ...         log(0, loss=0.5)
      ... except ImportError as error:
      ...     assert "pip install" in str(error)
    """
    try:  # only here, since it is optional
        writers = importlib.import_module("tensorboardX.event_file_writer")
    except ImportError as error:
        raise ImportError(
            "so.log.tensorboard writes with tensorboardX, which is not installed: pip install "
            "'secondorder[watch]', or pip install tensorboardX. so.log.csv needs neither."
        ) from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    # Its SummaryWriter writes from a thread of its own, up to two minutes later; this does at once.
    # The suffix makes names of the same second differ.
    prefix, suffix = os.path.join(folder, "events"), f".{time.time_ns()}"
    return _Events(writers.EventsWriter(prefix, filename_suffix=suffix))


class _File(Log):
    """A log in a text file."""

    def __init__(self, path: str | os.PathLike):
        self.path, self.file = Path(path), None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        first = b""
        if self.path.exists():
            with self.path.open("rb") as file:
                first = file.readline()
        if first and not self._is_log(first.decode("utf-8", "replace").rstrip("\r\n")):
            raise ValueError(
                f"{self.path} exists, but its first line is not that of such a log. Pass another "
                "path, or remove the file."
            )
        self.file = self.path.open("a", encoding="utf-8", newline="")
        self.file.truncate(_whole_lines(self.path))  # the last row of a run that was killed

    @abc.abstractmethod
    def _is_log(self, line: str) -> bool: ...

    def _append(self, line: str) -> None:
        if self.file is None:
            raise ValueError(f"The log {self.path} is closed; open it again to go on at its end.")
        self.file.write(line)  # one write a row, so that a killed run leaves whole rows
        self.file.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


class _Csv(_File):
    def __init__(self, path: str | os.PathLike):
        super().__init__(path)
        with self.path.open(encoding="utf-8", newline="") as file:
            self.columns = next(comma_separated.reader(file), [])

    def _is_log(self, line: str) -> bool:
        return line.split(",")[0] == "step"

    def _write(self, row: dict[str, Any]) -> None:
        more = [name for name in row if name not in self.columns]
        if more:
            self._widen(more)
        self._append(_line("" if row.get(name) is None else row[name] for name in self.columns))

    def _widen(self, more: list[str]) -> None:
        """Add columns by replacing the whole file, so that a kill leaves the one or the other."""
        self._append("")
        self.columns = [*self.columns, *more]
        beside = self.path.with_name(f"{self.path.name}.new")
        with (
            self.path.open(encoding="utf-8", newline="") as old,
            beside.open("w", encoding="utf-8", newline="") as new,
        ):
            new.write(_line(self.columns))
            for cells in itertools.islice(comma_separated.reader(old), 1, None):
                new.write(_line([*cells, *([""] * len(more))]))
        self.close()
        os.replace(beside, self.path)
        self.file = self.path.open("a", encoding="utf-8", newline="")


class _Jsonl(_File):
    takes_arrays = True

    def _is_log(self, line: str) -> bool:
        return line.startswith('{"step": ')

    def _write(self, row: dict[str, Any]) -> None:
        self._append(f"{json.dumps(row, ensure_ascii=False)}\n")


class _Events(Log):
    def __init__(self, writer: Any):
        self.writer = writer
        self.event = importlib.import_module("tensorboardX.proto.event_pb2").Event
        self.text = importlib.import_module("tensorboardX.summary").text

    def _write(self, row: dict[str, Any]) -> None:
        if self.writer is None:
            raise ValueError("The log of TensorBoard is closed; open another one in its folder.")
        event = self.event(wall_time=time.time(), step=row.pop("step"))
        for name, value in row.items():
            if isinstance(value, str):
                event.summary.MergeFrom(self.text(name, value))
            elif value is not None:
                event.summary.value.add(tag=name, simple_value=float(value))
        self.writer.write_event(event)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def _plain(name: str, x: Any) -> Any:
    """A value of Python, or a list of them."""
    if isinstance(x, enum.Enum):
        return x.name
    if x is None or isinstance(x, str | bool | int):
        return x
    if isinstance(x, Tracer):
        raise TypeError(
            f"A log got a traced value as {name}. Return it from the jitted step and log it "
            "outside, or log within jax.debug.callback."
        )
    try:
        array = np.asarray(x)
        if array.ndim:
            return [_plain(name, entry) for entry in array]
        for kind, number in ((jnp.bool_, bool), (jnp.integer, int)):
            if jnp.issubdtype(array.dtype, kind):
                return number(array)
        return float(str(array[()]))  # the shortest digits of its precision
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"A log got {name}={type(x).__name__}, which is no number. Pass numbers, booleans or "
            "strings, such as those of so.diagnostics(state)."
        ) from error


def _line(cells: Iterable[Any]) -> str:
    """A row of CSV."""
    texts: Sequence[str] = [str(cell) for cell in cells]
    quoted = [
        '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text
        for text in texts
    ]
    return ",".join(quoted) + "\n"


def _whole_lines(path: Path) -> int:
    """The length of a file up to its last whole line, in bytes."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            cut = file.read(end - start).rfind(b"\n")
            if cut >= 0:
                return start + cut + 1
            end = start
    return 0
