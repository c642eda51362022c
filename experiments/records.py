"""Where results live: one file per finished run, written at once, and the tables made from them."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engine import Run
from experiments.errors import UserError
from experiments.tuning import Trial, Tuning


class Store:
    """A results folder. What is finished is kept, and used again under the same settings."""

    def __init__(self, folder: Path, fresh: bool = False):
        self.folder = folder
        self.fresh = fresh
        self.reused = 0
        try:
            for part in ("runs", "figures"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise UserError(f"Cannot write results to '{folder}': {error.strerror}.") from error

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes a whole file or nothing: an interruption leaves the old one."""
        path = self.folder / name
        draft = path.with_name(path.name + ".part")
        try:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(draft, path)
        except OSError as error:
            raise UserError(f"Cannot write '{path}': {error.strerror}.") from error
        return path

    def _read(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return None
        if self.fresh or found.get("settings") != json.loads(json.dumps(settings)):
            return None
        self.reused += 1
        return found

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
        self.write(
            _run_file(run.problem, run.optimizer, run.seed),
            json.dumps({"settings": settings, "run": content}),
        )

    def load_tuning(
        self, problem: str, optimizer: str, settings: Mapping[str, Any]
    ) -> Tuning | None:
        found = self._read(_tuning_file(problem, optimizer), settings)
        if found is None:
            return None
        trials = tuple(Trial(**trial) for trial in found["tuning"].pop("trials"))
        return Tuning(trials=trials, **found["tuning"])

    def save_tuning(
        self, problem: str, optimizer: str, tuning: Tuning, settings: Mapping[str, Any]
    ) -> None:
        self.write(
            _tuning_file(problem, optimizer),
            json.dumps({"settings": settings, "tuning": asdict(tuning)}),
        )


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
