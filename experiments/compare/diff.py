"""Two comparisons side by side: before and after a change of code, or on two machines."""

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.compare.verdict import listed
from experiments.errors import UserError
from experiments.report import Heading, Part, Table, Verdict, Words, text_table, to_markdown
from experiments.results import COSTS, KEYS, label, number, where
from experiments.store import make_writable, read_table

TITLE = "Two comparisons, side by side"
CONFIG, TABLE = "config.json", "results"
QUANTITIES = COSTS | {"last_value": "value at the end"}
SAME = "Nothing else: code, versions, machine, settings and runs are the same."
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(sqlite3.Error, pd.errors.DatabaseError),
)
UNCOMPARED = ("command", "notes", "title", "tuning", "left_out", "optimizers")


class Folder(NamedTuple):
    """What a comparison left."""

    name: str
    config: dict[str, Any]
    numbers: pd.DataFrame
    """In long form; what was not reached is NaN."""

    @property
    def runs(self) -> set[tuple[str, str]]:
        return set(self.numbers[KEYS[:2]].itertuples(index=False, name=None))


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
    """The configuration and the results table."""
    try:
        config = json.loads((path / CONFIG).read_text())
        dict(config["problems"])
        table = read_table(path, TABLE)
        numbers = where(table, table.quantity.isin(list(QUANTITIES))).astype({"value": float})
    except UNREADABLE as e:
        why = f"{type(e).__name__}: {e}"
        raise UserError(f"The results in '{path}' cannot be read: {why}.") from e
    return Folder(str(path), config, numbers)


def ratios(a: Folder, b: Folder) -> pd.DataFrame:
    """Every number that both hold, and B / A where both arrived."""
    both = a.numbers.merge(b.numbers, on=[*KEYS, "quantity"], suffixes=("_a", "_b"))
    both = both.rename(columns={"value_a": "a", "value_b": "b"})
    ratio = (both.b / both.a).where(np.isfinite(both.a) & (both.a != 0))
    return both.assign(ratio=ratio.mask(both.a == both.b, 1.0))


def means(found: pd.DataFrame) -> str:
    """One sentence over everything that both reached."""
    sound = found[np.isfinite(found.ratio) & (found.ratio > 0)]
    parts, count = [], 0
    for quantity, words in COSTS.items():
        logs = np.log(sound.ratio[sound.quantity == quantity])
        if len(logs):
            count = max(count, len(logs))
            parts.append(f"{_ratio(math.exp(logs.mean()))} times the {words}")
    if not parts:
        return "There is no target that both reached."
    return f"B took {listed(parts)} of A: geometric means over {count} targets that both reached."


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if 0.01 <= ratio < 100 else f"{ratio:.1e}"


def _cell(row: Any) -> str:
    """A → B (B / A); values are given as they are, for their zeros mean something."""
    if math.isnan(row.a) and math.isnan(row.b):
        return "-"
    show = number if row.quantity in COSTS else "{:.4g}".format
    ratio = "" if math.isnan(row.ratio) else f" ({_ratio(row.ratio)})"
    return f"{show(row.a)} → {show(row.b)}{ratio}"


def _tables(found: pd.DataFrame) -> Iterator[tuple[str, float, pd.DataFrame]]:
    """For each problem and target, a line for each optimizer."""
    cells = found.assign(cell=[_cell(row) for row in found.itertuples()])
    groups: Any = cells.groupby(["problem", "target"], sort=False)
    for (problem, target), here in groups:
        order = list(dict.fromkeys(here.optimizer))
        wide = here.pivot(index="optimizer", columns="quantity", values="cell").loc[order]
        wide = wide[list(QUANTITIES)].rename(index=label, columns=QUANTITIES)
        yield problem, target, wide.rename_axis(columns=None).reset_index()


def differences(a: Folder, b: Folder) -> list[str]:
    """A sentence for each thing that differs and is no result."""
    said = [f"{n} was interrupted." for f, n in ((a, "A"), (b, "B")) if f.config.get("interrupted")]
    if a.config.get("source") != b.config.get("source"):
        said.append("The code of the library or of the experiments differs.")
    return [*said, *_lacking(a, b), *_facts(a, b)]


def _lacking(a: Folder, b: Folder) -> Iterator[str]:
    """Problems and optimizers in one folder alone, and single runs."""
    for one, other, name in ((a, b, "B"), (b, a, "A")):
        lacking = one.runs - other.runs
        for place, kind in ((0, "problem"), (1, "optimizer")):
            known = {run[place] for run in other.runs}
            for missing in sorted({run[place] for run in lacking} - known):
                yield f"{name} lacks the {kind} {missing}."
                lacking = {run for run in lacking if run[place] != missing}
        for problem, optimizer in sorted(lacking):
            yield f"{name} lacks {optimizer} on {problem}."


def _facts(a: Folder, b: Folder) -> Iterator[str]:
    """Versions, machine and settings, of what both ran."""
    ours, theirs = (dict(_flat(folder.config)) for folder in (a, b))
    once = {name for run in a.runs ^ b.runs for name in run} - {
        name for run in a.runs & b.runs for name in run
    }
    for place in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(place, "not recorded"), theirs.get(place, "not recorded")
        numbers = isinstance(one, float) and isinstance(other, float)
        same = math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) if numbers else one == other
        if not same and not once & set(place):
            yield f"{', '.join(place)}: {one} in A, {other} in B."


def _flat(config: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(config, dict):
        yield place, config
        return
    for name, entry in config.items():
        if name not in UNCOMPARED and (place or name not in ("source", "interrupted")):
            yield from _flat(entry, place if name == "problems" else (*place, name))


def page(a: Folder, b: Folder, found: pd.DataFrame) -> list[Part]:
    """All targets of all problems."""
    parts: list[Part] = [
        Words(f"A is `{a.name}`, B is `{b.name}`. Each cell is A → B, and in brackets B / A."),
        Words(means(found)),
        Verdict("What else differs", differences(a, b) or [SAME]),
    ]
    before = None
    for problem, target, table in _tables(found):
        if problem != before:
            parts.append(Heading(a.config["problems"][problem].get("title", problem)))
        parts.append(Table(table, f"To {target:g}"))
        before = problem
    return parts


def console(a: Folder, b: Folder, found: pd.DataFrame) -> str:
    """What the command prints: each problem to the tightest target that anybody reached."""
    shown = {}
    arrived = found.quantity.isin(list(COSTS)) & (np.isfinite(found.a) | np.isfinite(found.b))
    reached = set(zip(found.problem[arrived], found.target[arrived], strict=True))
    for problem, target, table in _tables(found):
        if (problem, target) in reached or problem not in shown:
            title = f"{problem}, to {target:g}: A → B (B / A)"
            shown[problem] = f"{title}\n{text_table(table)}"
    said = "\n".join([means(found), "", "What else differs:", *(differences(a, b) or [SAME])])
    return "\n\n".join([f"A: {a.name}\nB: {b.name}", *shown.values(), said])


def compare_folders(paths: tuple[Path, Path], out: Path) -> str:
    """Writes the page and the ratios into a folder, and says what the command prints."""
    a, b = map(read, paths)
    found = ratios(a, b)
    make_writable(out)
    (out / "diff.md").write_text(to_markdown(TITLE, page(a, b, found)))
    found.to_csv(out / "diff.csv", index=False)
    return f"{console(a, b, found)}\n\nPage: {out / 'diff.md'}"
