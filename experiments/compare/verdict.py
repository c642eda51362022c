"""What the numbers say, in sentences."""

import math
from collections.abc import Sequence

from experiments.compare.tables import UNITS, Summarised, judged_target, label, listed, number
from experiments.optimizers import OPTIMIZERS
from experiments.summary import COSTS, Row, winners


def verdict(results: Summarised) -> str:
    """Who won by each measure of cost, at the tightest target that anybody reached."""
    index = judged_target(results)
    if not _cheapest(results, "step"):
        return "No optimizer reached any target in at least half of its seeds."
    contested = any(not OPTIMIZERS[row.optimizer].baseline for row in results.rows)
    won: dict[str, list[str]] = {}
    for name in COSTS:
        tied = _cheapest(results, name)
        cost = getattr(tied[0].reached[index], name)
        won.setdefault(_subject(tied, contested), []).append(f"{UNITS[name]} ({number(cost)})")
    sentence = "; ".join(f"{who} in {listed(what)}" for who, what in won.items()) + "."
    return sentence[0].upper() + sentence[1:]


def baselines(all_results: Sequence[Summarised]) -> list[str]:
    """By each measure of cost, where none but gradient descent, Adam or L-BFGS is the cheapest."""
    sentences = []
    for name in COSTS:
        won: dict[str, list[str]] = {}
        for results in all_results:
            tied = _cheapest(results, name)
            if tied and all(OPTIMIZERS[row.optimizer].baseline for row in tied):
                who = listed([spoken(row.optimizer) for row in tied])
                won.setdefault(who, []).append(results.problem.title)
        count = sum(map(len, won.values()))
        where = "; ".join(f"{who}: {listed(titles)}" for who, titles in won.items())
        ending = f": {where}." if where else "."
        sentences.append(f"In {UNITS[name]} {count} of {len(all_results)}{ending}")
    return sentences


def _cheapest(results: Summarised, name: str) -> list[Row]:
    """Who was first at the tightest target that anybody reached, and all who tie."""
    index = judged_target(results)
    best = winners(results.rows, index)[name]
    cost = lambda row: getattr(row.reached[index], name)
    return [row for row in best if cost(row) == cost(best[0])]


def remarks(results: Summarised) -> list[str]:
    """Who is not there, what fewer steps cost, and who was left out."""
    index = judged_target(results)
    sentences = []
    lost = [spoken(row.optimizer) for row in results.rows if math.isinf(row.reached[index].step)]
    if lost and len(lost) < len(results.rows):
        sentences.append(f"Not there within its steps: {'; '.join(lost)}.")
    return [*sentences, *_trade(winners(results.rows, index)["step"], index), *results.left_out]


def spoken(optimizer: str) -> str:
    """Its label within a sentence."""
    name, *rest = label(optimizer).split(", ")
    return f"{name} ({', '.join(rest)})" if rest else name


def _subject(tied: Sequence[Row], contested: bool) -> str:
    """Who wins; a baseline is named as one where it had anything else to beat."""
    names = [spoken(row.optimizer) for row in tied]
    baselines = contested and all(OPTIMIZERS[row.optimizer].baseline for row in tied)
    title, verb = ("the baselines ", "win") if len(names) > 1 else ("the baseline ", "wins")
    return f"{title if baselines else ''}{listed(names)} {verb}"


def _trade(by_steps: Sequence[Row], index: int) -> list[str]:
    """Fewer steps, dearer steps: the winner in steps against the best first-order method."""
    firsts = [row for row in by_steps if OPTIMIZERS[row.optimizer].step_class == "first-order"]
    if not firsts or by_steps[0] is firsts[0]:
        return []
    winner, first = by_steps[0], firsts[0]
    fewer = first.reached[index].step / max(winner.reached[index].step, 1)
    dearer = winner.gradient_equivalents_per_step / first.gradient_equivalents_per_step
    return [
        f"{spoken(winner.optimizer)} took {number(fewer)} times fewer steps than "
        f"{spoken(first.optimizer)}, and each cost {number(dearer)} times as many gradients."
    ]
