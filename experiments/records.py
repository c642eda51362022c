"""Where results live: one file per finished run, written at once, and the tables made from them."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments import files
from experiments.checkpoints import SECONDS, Checkpoint
from experiments.engine import Run
from experiments.tuning import Trial


class Store:
    """A results folder. What is finished is kept, and used again under the same settings."""

    def __init__(
        self,
        folder: Path,
        fresh: bool = False,
        checkpoint_seconds: float = SECONDS,
        side_by_side: int = 1,
    ):
        self.folder, self.fresh = folder, fresh
        self.checkpoint_seconds, self.side_by_side = checkpoint_seconds, side_by_side
        files.made_writable(folder, *(folder / part for part in ("runs", "checkpoints")))

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes a whole file or nothing: an interruption leaves the old one."""
        return files.write(self.folder / name, content)

    def begin(self, names: Iterable[tuple[str, str]]) -> None:
        """Where all is to be run again, removes what is kept of these optimizers on problems."""
        for problem, optimizer in names if self.fresh else ():
            for file in (self.folder / "runs").glob(f"{problem}--{optimizer}--*.json"):
                file.unlink()
            for folder in (self.folder / "checkpoints").glob(f"{problem}--{optimizer}--*"):
                Checkpoint(folder, {}).discard()

    def checkpoint(
        self, problem: str, optimizer: str, run: str, settings: Mapping[str, Any]
    ) -> Checkpoint:
        """Where a run that is under way is kept: that of a seed, or the trial of a tuning."""
        folder = self.folder / "checkpoints" / f"{problem}--{optimizer}--{run}"
        return Checkpoint(folder, settings, self.checkpoint_seconds, self.side_by_side)

    def _read(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        found = files.unseal(self.folder / name)
        matches = found is not None and found.get("settings") == files.as_read(settings)
        return found if matches else None

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        self.write(name, files.seal(content))

    def load_run(
        self, problem: str, optimizer: str, seed: int, settings: Mapping[str, Any]
    ) -> Run | None:
        found = self._read(_run_file(problem, optimizer, seed), settings)
        if found is None:
            return None
        columns = {name: np.array(column) for name, column in found["run"].pop("columns").items()}
        return Run(columns=columns, **found["run"])

    def save_run(self, run: Run, settings: Mapping[str, Any]) -> None:
        content = asdict(run) | {
            "columns": {name: column.tolist() for name, column in run.columns.items()}
        }
        name = _run_file(run.problem, run.optimizer, run.seed)
        self._write(name, {"settings": settings, "run": content})

    def load_trials(self, problem: str, optimizer: str, settings: Mapping[str, Any]) -> list[Trial]:
        """The trials of a tuning that ended, in their order; of a finished one all."""
        found = self._read(_tuning_file(problem, optimizer), settings)
        return [Trial(**trial) for trial in found["trials"]] if found else []

    def save_trials(
        self, problem: str, optimizer: str, trials: Sequence[Trial], settings: Mapping[str, Any]
    ) -> None:
        content = {"settings": settings, "trials": [asdict(trial) for trial in trials]}
        self._write(_tuning_file(problem, optimizer), content)


def _run_file(problem: str, optimizer: str, seed: int) -> str:
    return f"runs/{problem}--{optimizer}--seed-{seed}.json"


def _tuning_file(problem: str, optimizer: str) -> str:
    return f"runs/{problem}--{optimizer}--tuning.json"


def records_csv(runs: Iterable[Run]) -> str:
    """One row per step of every run; a column that does not apply is empty."""
    runs = list(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.columns))
    rows = []
    for run in runs:
        for index in range(len(run.columns["step"])):
            cells = [
                run.columns[name][index] if name in run.columns else math.nan for name in names
            ]
            rows.append([run.problem, run.optimizer, run.seed, *map(_cell, cells)])
    return to_csv(["problem", "optimizer", "seed", *names], rows)


def _cell(number: float) -> str:
    number = float(number)
    if math.isnan(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def to_csv(header: list[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
