"""The report of a comparison, part by part."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from experiments import cost
from experiments.compare.document import (
    Heading,
    Illustration,
    Part,
    Table,
    Verbatim,
    Verdict,
    Words,
)
from experiments.compare.tables import (
    UNITS,
    Summarised,
    judged_target,
    label,
    number,
    table,
    target_name,
)
from experiments.compare.verdict import baselines, remarks, verdict
from experiments.summary import COSTS, winners

TITLE = "Who converges how fast, and what each step costs"

READING = """
Every curve is drawn three times, from step 0 at the left edge. **Iterations** show what the
method is worth where a step costs nothing. **Gradient-equivalents** charge a step for its
arithmetic: one is a value and gradient over the training data. **Seconds** are measured here,
with compilation apart and the clock stopped during evaluation; on problems this small, calling a
step from Python takes a good part of them. Second-order methods take fewer and dearer steps, and
only the last two panels tell whether that was a bargain. With several seeds a curve is their
median, and its band goes from the least to the greatest. A cross marks a run that failed. In the
tables a dash is a target that half of the seeds or more did not reach.
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
    all_results: Sequence[Summarised],
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


def _overview(all_results: Sequence[Summarised]) -> Iterator[Part]:
    """A sentence for each problem, and its winners by each measure."""
    yield Verdict(
        "At the tightest target that anybody reached",
        [f"**{results.problem.title}**: {verdict(results)}" for results in all_results],
    )
    yield Verdict("Problems on which a baseline is the cheapest there", baselines(all_results))
    lines = [[results.problem.title, *_winners(results)] for results in all_results]
    yield Table(["problem", *(f"fewest {UNITS[name]}" for name in COSTS), "target"], lines)


def _winners(results: Summarised) -> list[str]:
    """By each measure, and the target."""
    index = judged_target(results)
    best = winners(results.rows, index)
    cells = []
    for name in COSTS:
        row = best[name][0] if best[name] else None
        least = f" ({number(getattr(row.reached[index], name))})" if row else ""
        cells.append(f"{label(row.optimizer) if row else 'none'}{least}")
    return [*cells, target_name(results.problem, results.problem.targets[index])]


def _problem(results: Summarised, illustrations: Sequence[Illustration]) -> Iterator[Part]:
    problem, judged = results.problem, judged_target(results)
    yield Heading(problem.title)
    yield Words(problem.description)
    target = target_name(problem, problem.targets[judged])
    yield Verdict(f"To {target}", [verdict(results), *remarks(results)])
    yield from illustrations
    for index, target in enumerate(problem.targets):
        title = f"Cost to {target_name(problem, target)}"
        yield Table(*table(results, index), title=title, folded=index != judged)


def _tuning(all_results: Sequence[Summarised]) -> Iterator[Part]:
    lines = [
        [
            f"{results.problem.name}: {label(name)}",
            str(len(tuning.trials)),
            number(tuning.steps_per_trial),
            number(tuning.gradient_equivalents),
            f"{tuning.hyperparameter} = {tuning.best.setting:.3g}",
        ]
        for results in all_results
        for name, tuning in results.tunings.items()
    ]
    if lines:
        yield Words(
            "Everything else runs at its defaults. What the search cost is not part of any curve."
        )
        yield Table(
            ["tuned", "trials", "steps each, at most", "gradient-equivalents in all", "chosen"],
            lines,
        )


def _named(entries: Mapping[str, str]) -> Table:
    return Table(["", ""], list(entries.items()))
