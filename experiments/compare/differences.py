"""What two comparisons differ in besides their results, in sentences."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.compare.folders import Folder


def differences(a: Folder, b: Folder) -> list[str]:
    """A sentence for each thing that differs and is no result."""
    return [*_of_making(a, b), *_of_runs(a, b), *_of_settings(a, b)]


def _of_making(a: Folder, b: Folder) -> Iterator[str]:
    for folder, name in ((a, "A"), (b, "B")):
        if folder.config.get("interrupted"):
            yield f"{name} was interrupted."
    if a.config.get("source") != b.config.get("source"):
        yield "The code of the library or of the experiments differs."
    for kind, what in (("versions", "Version of {}"), ("machine", "Machine, {}")):
        ours, theirs = (_entries(folder.config.get(kind)) for folder in (a, b))
        for name in dict.fromkeys([*ours, *theirs]):
            yield from _unequal(what.format(name), ours.get(name), theirs.get(name))


def _entries(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _unequal(what: str, a: Any, b: Any) -> Iterator[str]:
    if a != b:
        yield f"{what}: {_shown(a)} in A, {_shown(b)} in B."


def _shown(entry: Any) -> str:
    if isinstance(entry, Mapping):
        return ", ".join(f"{name} = {x}" for name, x in entry.items())
    return "not recorded" if entry is None else str(entry)


def _of_runs(a: Folder, b: Folder) -> Iterator[str]:
    """Whole problems, whole optimizers, and what is left."""
    for one, other, name in ((a, b, "B"), (b, a, "A")):
        lacking = one.runs - other.runs
        for place, kind in ((0, "problem"), (1, "optimizer")):
            known = {run[place] for run in other.runs}
            for missing in sorted({run[place] for run in lacking} - known):
                yield f"{name} lacks the {kind} {missing}."
                lacking = {run for run in lacking if run[place] != missing}
        for problem, optimizer in sorted(lacking):
            yield f"{name} lacks {optimizer} on {problem}."


SETTINGS = {
    "precision": "precision",
    "seeds": "list of seeds",
    "targets": "list of targets",
    "grad_norm_target": "gradient norm at which a run ends",
    "measure": "measure",
}
OF_OPTIMIZERS = {"steps": "limit of steps", "chosen": "what was chosen"}


def _of_settings(a: Folder, b: Folder) -> Iterator[str]:
    ours, theirs = a.config["problems"], b.config["problems"]
    for problem in (name for name in ours if name in theirs):
        pair = ours[problem], theirs[problem]
        for name, words in SETTINGS.items():
            yield from _unequal(f"{problem}, {words}", *(one.get(name) for one in pair))
        if pair[0].get("measure") == "suboptimality":
            yield from _optima(problem, *(one.get("optimum") for one in pair))
        for optimizer in sorted(name for place, name in a.runs & b.runs if place == problem):
            for name, words in OF_OPTIMIZERS.items():
                found = (_entries(one.get(name)).get(optimizer) for one in pair)
                yield from _unequal(f"{problem}, {words} for {optimizer}", *found)


def _optima(problem: str, a: float | None, b: float | None) -> Iterator[str]:
    """Suboptimality is measured from each folder's own."""
    if a is None or b is None or not math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12):
        yield from _unequal(f"{problem}, optimum that suboptimality is measured from", a, b)
