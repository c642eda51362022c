"""The tables of all problems: for the terminal, as Markdown and as LaTeX."""

from collections.abc import Sequence

from experiments.compare.tables import (
    Summarised,
    judged_target,
    latex_table,
    markdown_table,
    table,
    target_name,
    text_table,
)
from experiments.compare.verdict import remarks, verdict


def console(all_results: Sequence[Summarised]) -> str:
    """What the command prints: one table per problem, to its tightest reached target."""
    parts = []
    for results in all_results:
        index = judged_target(results)
        target = target_name(results.problem, results.problem.targets[index])
        title = f"{results.problem.title}: cost to {target}"
        sentences = [verdict(results), *remarks(results)]
        parts.append("\n".join([title, text_table(*table(results, index)), *sentences]))
    return "\n\n".join(parts)


def summary_markdown(all_results: Sequence[Summarised], notes: Sequence[str] = ()) -> str:
    """Every target of every problem."""
    parts = ["# Steps, gradient-equivalents and seconds to each target", *notes]
    for results in all_results:
        parts.append(f"## {results.problem.title}")
        for index, target in enumerate(results.problem.targets):
            parts.append(f"To {target_name(results.problem, target)}:")
            parts.append(markdown_table(*table(results, index)))
        parts.append(" ".join([verdict(results), *remarks(results)]))
    return "\n\n".join(parts) + "\n"


def summary_latex(all_results: Sequence[Summarised]) -> str:
    """The same tables for a paper: each is one float."""
    tables = []
    for results in all_results:
        for index, target in enumerate(results.problem.targets):
            caption = f"{results.problem.title}: cost to {target_name(results.problem, target)}."
            tables.append(latex_table(*table(results, index), caption))
    return "\n\n".join(tables) + "\n"
