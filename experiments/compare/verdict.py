"""What the numbers say, in sentences."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from experiments.optimizers import OPTIMIZERS
from experiments.problem import Problem
from experiments.results import COSTS, cheapest, judged_target, label, number, where


class Summarised(Protocol):
    """What the sentences need to know of one problem."""

    problem: Problem
    table: pd.DataFrame
    left_out: list[str]


def verdict(results: Summarised) -> str:
    """Who won by each measure of cost, at the tightest target that anybody reached."""
    if _first(results, "steps").empty:
        return "No optimizer reached any target in at least half of its seeds."
    contested = not all(_baseline(name) for name in results.table.optimizer)
    won: dict[str, list[str]] = {}
    for cost, words in COSTS.items():
        tied = _first(results, cost)
        who = _subject(list(tied.optimizer), contested)
        won.setdefault(who, []).append(f"{words} ({number(tied[cost].iloc[0])})")
    sentence = "; ".join(f"{who} in {listed(what)}" for who, what in won.items()) + "."
    return sentence[0].upper() + sentence[1:]


def baselines(all_results: Sequence[Summarised]) -> list[str]:
    """By each measure of cost, where none but gradient descent, Adam or L-BFGS is the cheapest."""
    sentences = []
    for cost, words in COSTS.items():
        won: dict[str, list[str]] = {}
        for results in all_results:
            tied = list(_first(results, cost).optimizer)
            if tied and all(map(_baseline, tied)):
                won.setdefault(listed(map(spoken, tied)), []).append(results.problem.title)
        count = sum(map(len, won.values()))
        where = "; ".join(f"{who}: {listed(titles)}" for who, titles in won.items())
        sentences.append(f"In {words} {count} of {len(all_results)}{f': {where}' * bool(where)}.")
    return sentences


def remarks(results: Summarised) -> list[str]:
    """Who is not there, what fewer steps cost, and who was left out."""
    target = judged_target(results.problem, results.table)
    at = where(results.table, results.table.target == target)
    lost = [spoken(name) for name in at.optimizer[np.isinf(at.steps)]]
    said = [f"Not there within its steps: {'; '.join(lost)}."] * (0 < len(lost) < len(at))
    return [*said, *_trade(cheapest(results.table, target, "steps")), *results.left_out]


def winners(results: Summarised) -> list[str]:
    """By each measure of cost the first of the cheapest, and its cost."""
    cells = []
    for cost in COSTS:
        first = _first(results, cost)
        least = "" if first.empty else f" ({number(first[cost].iloc[0])})"
        cells.append(f"{'none' if first.empty else label(first.optimizer.iloc[0])}{least}")
    return cells


def listed(names) -> str:
    """A, B and C."""
    *others, last = names
    return " and ".join(part for part in (", ".join(others), last) if part)


def spoken(optimizer: str) -> str:
    """Its label within a sentence."""
    name, *rest = label(optimizer).split(", ")
    return f"{name} ({', '.join(rest)})" if rest else name


def _first(results: Summarised, cost: str) -> pd.DataFrame:
    """The cheapest at the tightest target that anybody reached, and all who tie."""
    best = cheapest(results.table, judged_target(results.problem, results.table), cost)
    return where(best, best[cost] == best[cost].min())


def _baseline(optimizer: str) -> bool:
    return OPTIMIZERS[optimizer].baseline


def _subject(tied: Sequence[str], contested: bool) -> str:
    """Who wins; a baseline is named as one where it had anything else to beat."""
    title, verb = ("the baselines ", "win") if len(tied) > 1 else ("the baseline ", "wins")
    named = contested and all(map(_baseline, tied))
    return f"{title * named}{listed(map(spoken, tied))} {verb}"


def _trade(by_steps: pd.DataFrame) -> list[str]:
    """Fewer steps, dearer steps: the winner in steps against the best first-order method."""
    rows: list[Any] = list(by_steps.itertuples())
    firsts = [row for row in rows if OPTIMIZERS[row.optimizer].step_class == "first-order"]
    if not firsts or rows[0] is firsts[0]:
        return []
    winner, first = rows[0], firsts[0]
    dearer = winner.gradient_equivalents_per_step / first.gradient_equivalents_per_step
    return [
        f"{spoken(winner.optimizer)} took {number(first.steps / max(winner.steps, 1))} times fewer "
        f"steps than {spoken(first.optimizer)}, and each cost {number(dearer)} times as many "
        "gradients."
    ]
