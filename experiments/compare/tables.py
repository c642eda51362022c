"""The cost of reaching a target in columns: for the terminal, as Markdown and as LaTeX."""

import math
from collections.abc import Sequence
from typing import Protocol

from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem
from experiments.summary import COSTS, Row
from experiments.tuning import Tuning

UNITS = {"step": "steps", "gradient_equivalents": "gradient-equivalents", "seconds": "seconds"}


class Summarised(Protocol):
    """What the tables need to know of one problem."""

    problem: Problem
    rows: list[Row]
    tunings: dict[str, Tuning]
    left_out: list[str]


def number(x: float) -> str:
    """Three digits, as short as they go."""
    if not math.isfinite(x):
        return "-"
    x = round(x, 9)
    if x == 0 or 0.01 <= abs(x) < 1e5:
        digits = (
            0 if abs(x) >= 100 or x == round(x) else 1 if abs(x) >= 10 else 2 if abs(x) >= 1 else 3
        )
        return f"{x:,.{digits}f}"
    return f"{x:.1e}"


MEASURES = {
    "suboptimality": "relative suboptimality",
    "loss": "training loss",
    "error": "relative error",
}


def target_name(problem: Problem, target: float) -> str:
    return f"{MEASURES[problem.measure]} ≤ {target:g}".replace("e-0", "e-")


def judged_target(results: Summarised) -> int:
    """The tightest target that any optimizer reached in most of its seeds."""
    for index in reversed(range(len(results.problem.targets))):
        if any(math.isfinite(row.reached[index].step) for row in results.rows):
            return index
    return 0


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def label(optimizer: str) -> str:
    return OPTIMIZERS[optimizer].label


def table(results: Summarised, index: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows for one target."""
    learning = any(math.isfinite(row.held_out_accuracy) for row in results.rows)
    several = any(row.seeds > 1 for row in results.rows)
    header = ["optimizer", "steps", "grad.-equiv.", "seconds", "g.-e./step", "ms/step", "compile s"]
    header += (["held-out"] if learning else []) + (["reached"] if several else []) + ["ended"]
    lines = []
    for row in results.rows:
        hit = row.reached[index]
        cells = [label(row.optimizer), *(number(getattr(hit, name)) for name in COSTS)]
        cells += [number(row.gradient_equivalents_per_step), number(row.milliseconds_per_step)]
        cells += [number(row.compile_seconds)]
        cells += [f"{row.held_out_accuracy:.1%}"] if learning else []
        cells += [f"{hit.count} of {row.seeds}"] if several else []
        lines.append([*cells, f"{row.status}, {number(row.steps)} steps"])
    return header, lines


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns: words to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (header, *lines)) for i in range(len(header))]
    words = {0, len(header) - 1}

    def format_row(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i in words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(
        [format_row(header), "  ".join("-" * width for width in widths), *map(format_row, lines)]
    )


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruler = [":---" if i in (0, len(header) - 1) else "---:" for i in range(len(header))]
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (header, ruler, *lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def latex_table(header: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> str:
    """A table that needs no package."""
    columns = "l" + "r" * (len(header) - 2) + "l"
    head, *body = [" & ".join(map(_latex, row)) + r" \\" for row in (header, *lines)]
    parts = [r"\begin{table}", rf"\caption{{{_latex(caption)}}}"]
    parts += [rf"\begin{{tabular}}{{{columns}}}", r"\hline", head, r"\hline", *body, r"\hline"]
    return "\n".join([*parts, r"\end{tabular}", r"\end{table}"])


LATEX = {character: rf"\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\~{}",
    "^": r"\^{}",
    "≤": r"$\le$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "²": "$^2$",
    "κ": r"$\kappa$",
}


def _latex(text: str) -> str:
    """Plain text; a lone dash is a number that is not there."""
    return "--" if text == "-" else "".join(LATEX.get(character, character) for character in text)
