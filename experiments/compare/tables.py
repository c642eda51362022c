"""The summary in words and columns: for the terminal, as Markdown, and as sentences."""

import math
from collections.abc import Sequence
from typing import Protocol

from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem
from experiments.summary import COSTS, Row, winners
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
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ruler, *lines))


def console(all_results: Sequence[Summarised]) -> str:
    """What the command prints: one table per problem, to its tightest reached target."""
    parts = []
    for results in all_results:
        index = judged_target(results)
        target = target_name(results.problem, results.problem.targets[index])
        title = f"{results.problem.title}: cost to {target}"
        parts.append("\n".join([title, text_table(*table(results, index)), *verdict(results)]))
    return "\n\n".join(parts)


def summary_markdown(all_results: Sequence[Summarised]) -> str:
    """Every target of every problem."""
    parts = ["# Steps, gradient-equivalents and seconds to each target"]
    for results in all_results:
        parts.append(f"## {results.problem.title}")
        for index, target in enumerate(results.problem.targets):
            parts.append(f"To {target_name(results.problem, target)}:")
            parts.append(markdown_table(*table(results, index)))
        parts.append(" ".join(verdict(results)))
    return "\n\n".join(parts) + "\n"


def verdict(results: Summarised) -> list[str]:
    """Who won, by each measure of cost, at the tightest target anybody reached."""
    index = judged_target(results)
    best = winners(results.rows, index)
    if not best["step"]:
        return ["No optimizer reached any target in at least half of its seeds."]
    sentences = [f"Fewest {UNITS[name]}: {_tied(best[name], index, name)}." for name in COSTS]
    ours = any(not OPTIMIZERS[row.optimizer].baseline for row in results.rows)
    if ours and (baselines := _baseline_wins(best)):
        sentences.append(f"{' and '.join(baselines)}: there a baseline is the better choice.")
    if lost := [
        label(row.optimizer) for row in results.rows if not math.isfinite(row.reached[index].step)
    ]:
        sentences.append(f"Not there within its steps: {'; '.join(lost)}.")
    sentences += [_trade(best["step"], index), *results.left_out]
    return [sentence for sentence in sentences if sentence]


def _tied(rows: Sequence[Row], index: int, name: str) -> str:
    cost = getattr(rows[0].reached[index], name)
    tied = [label(row.optimizer) for row in rows if getattr(row.reached[index], name) == cost]
    return f"{_listed(tied)} ({number(cost)})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _baseline_wins(best) -> list[str]:
    won: dict[str, list[str]] = {}
    for name in COSTS:
        if OPTIMIZERS[best[name][0].optimizer].baseline:
            won.setdefault(label(best[name][0].optimizer), []).append(UNITS[name])
    return [f"{who} wins in {_listed(units)}" for who, units in won.items()]


def _trade(by_steps: Sequence[Row], index: int) -> str:
    """Fewer steps, dearer steps: the winner in steps against the best first-order method."""
    first = next(
        (row for row in by_steps if OPTIMIZERS[row.optimizer].step_class == "first-order"), None
    )
    winner = by_steps[0]
    if first is None or winner is first:
        return ""
    fewer = first.reached[index].step / max(winner.reached[index].step, 1)
    dearer = winner.gradient_equivalents_per_step / first.gradient_equivalents_per_step
    return (
        f"{label(winner.optimizer)} took {number(fewer)} times fewer steps than "
        f"{label(first.optimizer)}, and each cost {number(dearer)} times as many gradients."
    )
