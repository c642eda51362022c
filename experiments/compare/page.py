"""The report of a comparison, part by part."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from experiments import cost
from experiments.compare.run import Results
from experiments.compare.verdict import baselines, remarks, verdict, winners
from experiments.report import (
    Heading,
    Illustration,
    Part,
    Table,
    Verbatim,
    Verdict,
    Words,
    latex_table,
    text_table,
)
from experiments.results import COSTS, label, number, shown, target_name

TITLE = "Who converges how fast, and what each step costs"

READING = """
Every curve is drawn three times, from step 0 at the left edge. **Iterations** show what the
method is worth where a step costs nothing. **Gradient-equivalents** charge a step for its
arithmetic: one is a value and gradient over the training data. **Seconds** are measured here,
with nothing else at work and the clock stopped during evaluation; on problems this small, calling a
step from Python takes a good part of them. Second-order methods take fewer and more expensive
steps, and only the last two panels tell whether that was a bargain. With several seeds a curve is
their median, and its band goes from the least to the greatest. A cross marks a run that failed. In
the tables a dash is a target that half of the seeds or more did not reach; programs are compiled
two at a time.
""".strip()


class Circumstances(NamedTuple):
    """How the numbers came about."""

    command: str
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    budget: str
    notes: Sequence[str]
    """What a reader has to know before anything else, such as an interruption."""


def report(
    all_results: Sequence[Results],
    illustrations: Mapping[str, Sequence[Illustration]],
    profiles: Illustration | None,
    made: Circumstances,
) -> list[Part]:
    """The whole page; `illustrations` by the name of the problem."""
    parts: list[Part] = [Words(f"`{made.command}`"), *(Words(f"**{note}**") for note in made.notes)]
    parts += [Words(READING), Heading("The verdicts"), *_overview(all_results)]
    parts += [profiles] if profiles else []
    for results in all_results:
        parts += _problem(results, illustrations[results.problem.name])
    parts += [Heading("Tuning"), Words(made.budget), *_tuning(all_results)]
    parts += [Heading("The machine"), _named(made.machine)]
    parts += [Heading("Versions"), _named(made.versions)]
    parts += [Heading("How gradient-equivalents are counted"), Verbatim(str(cost.__doc__).strip())]
    return parts


def console(all_results: Sequence[Results]) -> str:
    """What the command prints: one table per problem, to its tightest reached target."""
    parts = []
    for results in all_results:
        title = f"{results.problem.title}: cost to {_judged(results)}"
        table = text_table(shown(results.table, results.target))
        parts.append("\n".join([title, table, verdict(results), *remarks(results)]))
    return "\n\n".join(parts)


def latex(all_results: Sequence[Results]) -> str:
    """The tables for a paper: each is one float."""
    tables = [
        latex_table(
            shown(results.table, target),
            f"{results.problem.title}: cost to {target_name(results.problem, target)}.",
        )
        for results in all_results
        for target in results.problem.targets
    ]
    return "\n".join(tables)


def _judged(results: Results) -> str:
    return target_name(results.problem, results.target)


def _overview(all_results: Sequence[Results]) -> Iterator[Part]:
    """A sentence for each problem, and its winners by each measure."""
    yield Verdict(
        "At the tightest target that anybody reached",
        [f"**{results.problem.title}**: {verdict(results)}" for results in all_results],
    )
    yield Verdict("Problems on which a baseline is the cheapest there", baselines(all_results))
    rows = [[each.problem.title, *winners(each), _judged(each)] for each in all_results]
    header = ["problem", *(f"fewest {words}" for words in COSTS.values()), "target"]
    yield Table(pd.DataFrame(rows, columns=header))


def _problem(results: Results, illustrations: Sequence[Illustration]) -> Iterator[Part]:
    problem = results.problem
    yield Heading(problem.title)
    yield Words(problem.description)
    yield Verdict(f"To {_judged(results)}", [verdict(results), *remarks(results)])
    yield from illustrations
    for target in problem.targets:
        title, folded = f"Cost to {target_name(problem, target)}", target != results.target
        yield Table(shown(results.table, target), title, folded)


def _tuning(all_results: Sequence[Results]) -> Iterator[Part]:
    rows = [
        {
            "tuned": f"{results.problem.name}: {label(name)}",
            "trials": str(len(tuning.trials)),
            "steps each, at most": number(tuning.steps_per_trial),
            "gradient-equivalents in all": number(tuning.gradient_equivalents),
            "chosen": f"{tuning.hyperparameter} = {tuning.best.setting:.3g}",
        }
        for results in all_results
        for name, tuning in results.tunings.items()
    ]
    if rows:
        yield Words(
            "Everything else runs at its defaults. What the search cost is not part of any curve."
        )
        yield Table(pd.DataFrame(rows))


def _named(entries: Mapping[str, str]) -> Table:
    return Table(pd.DataFrame(list(entries.items()), columns=["", ""]))
