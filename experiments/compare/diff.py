"""Two comparisons side by side: before and after a change of code, or on two machines."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.compare.differences import differences
from experiments.compare.document import Heading, Part, Table, Verdict, Words, to_markdown
from experiments.compare.folders import COSTS, QUANTITIES, Folder, Ratio, ratios, read
from experiments.compare.tables import label, listed, number, text_table
from experiments.errors import UserError
from experiments.optimizers import OPTIMIZERS
from experiments.records import to_csv

TITLE = "Two comparisons, side by side"
HEADER = ["optimizer", *QUANTITIES.values()]
SAME = "Nothing else: code, versions, machine, settings and runs are the same."


def means(found: Sequence[Ratio]) -> str:
    """One sentence over everything that both reached."""
    parts, count = [], 0
    for quantity, words in COSTS.items():
        logs = [
            math.log(each.ratio)
            for each in found
            if each.quantity == quantity and math.isfinite(each.ratio) and each.ratio > 0
        ]
        if logs:
            count = max(count, len(logs))
            parts.append(f"{_ratio(math.exp(math.fsum(logs) / len(logs)))} times the {words}")
    if not parts:
        return "There is no target that both reached."
    return f"B took {listed(parts)} of A: geometric means over {count} targets that both reached."


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if 0.01 <= ratio < 100 else f"{ratio:.1e}"


def _cell(each: Ratio) -> str:
    """A → B (B / A); values are given as they are, for their zeros mean something."""
    if math.isnan(each.a) and math.isnan(each.b):
        return "-"
    show = number if each.quantity in COSTS else "{:.4g}".format
    ratio = "" if math.isnan(each.ratio) else f" ({_ratio(each.ratio)})"
    return f"{show(each.a)} → {show(each.b)}{ratio}"


def tables(found: Sequence[Ratio]) -> Iterator[tuple[str, float, list[list[str]]]]:
    """For each problem and target, a line for each optimizer."""
    for problem, target in dict.fromkeys((each.problem, each.target) for each in found):
        here = [each for each in found if (each.problem, each.target) == (problem, target)]
        lines: dict[str, list[str]] = {}
        for each in here:
            name = label(each.optimizer) if each.optimizer in OPTIMIZERS else each.optimizer
            lines.setdefault(name, [name]).append(_cell(each))
        yield problem, target, list(lines.values())


def page(a: Folder, b: Folder, found: Sequence[Ratio]) -> list[Part]:
    """All targets of all problems."""
    parts: list[Part] = [
        Words(f"A is `{a.name}`, B is `{b.name}`. Each cell is A → B, and in brackets B / A."),
        Words(means(found)),
        Verdict("What else differs", differences(a, b) or [SAME]),
    ]
    before = None
    for problem, target, lines in tables(found):
        if problem != before:
            parts.append(Heading(a.config["problems"][problem].get("title", problem)))
        parts.append(Table(HEADER, lines, title=f"To {target:g}"))
        before = problem
    return parts


def console(a: Folder, b: Folder, found: Sequence[Ratio]) -> str:
    """What the command prints: each problem to the tightest target that anybody reached."""
    shown = {}
    for problem, target, lines in tables(found):
        reached = any(
            math.isfinite(each.a) or math.isfinite(each.b)
            for each in found
            if each.quantity in COSTS and (each.problem, each.target) == (problem, target)
        )
        if reached or problem not in shown:
            title = f"{problem}, to {target:g}: A → B (B / A)"
            shown[problem] = f"{title}\n{text_table(HEADER, lines)}"
    said = "\n".join([means(found), "", "What else differs:", *(differences(a, b) or [SAME])])
    return "\n\n".join([f"A: {a.name}\nB: {b.name}", *shown.values(), said])


def compare_folders(paths: tuple[Path, Path], out: Path) -> str:
    """Writes the page and the ratios into a folder, and says what the command prints."""
    a, b = map(read, paths)
    found = ratios(a, b)
    lines = [[*each, each.ratio] for each in found]
    cells = [["" if x != x else x for x in line] for line in lines]
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "diff.md").write_text(to_markdown(TITLE, page(a, b, found)))
        (out / "diff.csv").write_text(to_csv([*Ratio._fields, "ratio"], cells))
    except OSError as error:
        raise UserError(f"Cannot write to '{out}': {error.strerror}.") from error
    return f"{console(a, b, found)}\n\nPage: {out / 'diff.md'}"
