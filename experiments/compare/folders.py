"""Folders of results, read again: what is in two of them, number by number."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import UserError

CONFIG, SUMMARY = "config.json", "summary.csv"
COSTS = {
    "steps": "steps",
    "gradient_equivalents": "gradient-equivalents",
    "seconds": "seconds",
}
QUANTITIES = COSTS | {"last_value": "value at the end"}


class Folder(NamedTuple):
    """What a comparison left."""

    name: str
    config: Mapping[str, Any]
    rows: Mapping[tuple[str, str, float], Mapping[str, float]]
    """The quantities by problem, optimizer and target; what was not reached is NaN."""

    @property
    def runs(self) -> set[tuple[str, str]]:
        return {(problem, optimizer) for problem, optimizer, _ in self.rows}


class Ratio(NamedTuple):
    """One number in both folders; what was not reached is not finite."""

    problem: str
    optimizer: str
    target: float
    quantity: str
    a: float
    b: float

    @property
    def ratio(self) -> float:
        if self.a == self.b:
            return 1.0
        return self.b / self.a if math.isfinite(self.a) and self.a else math.nan


def two_folders(arguments: Sequence[str]) -> tuple[Path, Path] | None:
    """Both folders, where results are named instead of problems."""
    folders = [Path(argument) for argument in arguments if (Path(argument) / CONFIG).is_file()]
    if not folders:
        return None
    if len(folders) != len(arguments):
        other = next(argument for argument in arguments if Path(argument) not in folders)
        raise UserError(
            f"'{folders[0]}' is a folder of results and '{other}' is not: it holds no {CONFIG}. "
            "Name two folders of results, or problems."
        )
    if len(folders) != 2:
        raise UserError(f"Two folders of results can be compared, not {len(folders)}.")
    return folders[0], folders[1]


def read(path: Path) -> Folder:
    """The configuration and the summary."""
    try:
        config = json.loads((path / CONFIG).read_text())
        dict(config["problems"])
        with (path / SUMMARY).open(newline="") as file:
            rows = {
                (row["problem"], row["optimizer"], float(row["target"])): {
                    name: float(row[name] or math.nan) for name in QUANTITIES
                }
                for row in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"The results in '{path}' cannot be read: {why}.") from error
    return Folder(str(path), config, rows)


def ratios(a: Folder, b: Folder) -> list[Ratio]:
    """Every number that both hold."""
    return [
        Ratio(*key, quantity, a.rows[key][quantity], b.rows[key][quantity])
        for key in a.rows
        if key in b.rows
        for quantity in QUANTITIES
    ]
