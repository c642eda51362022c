"""The report: one HTML file that opens alone, images inside."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import cost
from experiments.compare.tables import (
    COSTS,
    UNITS,
    Summarised,
    judged_target,
    label,
    number,
    table,
    target_name,
    verdict,
)
from experiments.summary import winners

STYLE = (Path(__file__).parent / "report.css").read_text()

READING = """
Every curve is drawn three times, from step 0 at the left edge. <b>Iterations</b> show what the
method is worth where a step costs nothing. <b>Gradient-equivalents</b> charge a step for its
arithmetic: one is a value and gradient over the training data. <b>Seconds</b> are measured here,
with compilation apart and the clock stopped during evaluation; on problems this small, calling a
step from Python takes a good part of them. Second-order methods take fewer and dearer steps, and
only the last two panels tell whether that was a bargain. A cross marks a run that failed. In the
tables a dash is a target that half of the seeds or more did not reach.
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Convergence report</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


class Illustration(NamedTuple):
    """One figure of the report."""

    name: str
    caption: str
    png: bytes


def html_report(
    all_results: Sequence[Summarised],
    illustrations: Mapping[str, Sequence[Illustration]],
    command: str,
    versions: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """The whole page; `illustrations` by the name of the problem."""
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [
        "<h1>Who converges how fast, and what each step costs</h1>",
        f'<p class="note"><code>{html.escape(command)}</code><br>{html.escape(software)}</p>',
    ]
    parts += [f"<p><b>{html.escape(note)}</b></p>" for note in notes]
    parts += [f"<p>{READING}</p>", _overview(all_results)]
    parts += [_section(results, illustrations[results.problem.name]) for results in all_results]
    parts.append(_tuning(all_results))
    counting = html.escape(str(cost.__doc__).strip())
    parts.append(f"<h2>How gradient-equivalents are counted</h2><pre>{counting}</pre>")
    return PAGE.format(style=STYLE, body="\n".join(part for part in parts if part))


def _overview(all_results: Sequence[Summarised]) -> str:
    """The winner of each problem by each measure."""
    lines = []
    for results in all_results:
        index = judged_target(results)
        best = winners(results.rows, index)
        cells = []
        for name in COSTS:
            row = best[name][0] if best[name] else None
            cells.append(
                f"{label(row.optimizer)} ({number(getattr(row.reached[index], name))})"
                if row
                else "none"
            )
        lines.append(
            [
                results.problem.title,
                *cells,
                target_name(results.problem, results.problem.targets[index]),
            ]
        )
    header = ["problem", *(f"fewest {UNITS[name]}" for name in COSTS), "target"]
    return "<h2>The winners</h2>" + _table(header, lines)


def _section(results: Summarised, figures: Sequence[Illustration]) -> str:
    problem = results.problem
    parts = [f"<h2>{html.escape(problem.title)}</h2>", f"<p>{html.escape(problem.description)}</p>"]
    sentences = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in verdict(results))
    target = target_name(problem, problem.targets[judged_target(results)])
    parts.append(f'<div class="verdict"><b>To {html.escape(target)}</b><ul>{sentences}</ul></div>')
    for figure in figures:
        parts.append(_figure(figure.png, figure.caption, f"{problem.title}: {figure.name}"))
    for index, target in enumerate(problem.targets):
        shown = " open" if index == judged_target(results) else ""
        name = html.escape(target_name(problem, target))
        content = f"<summary>Cost to {name}</summary>{_table(*table(results, index))}"
        parts.append(f"<details{shown}>{content}</details>")
    return "\n".join(parts)


def _figure(png: bytes, caption: str, alternative: str) -> str:
    data = base64.b64encode(png).decode()
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    image = f'<img alt="{html.escape(alternative)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}{text}</figure>"


def _tuning(all_results: Sequence[Summarised]) -> str:
    lines = []
    for results in all_results:
        for name, tuning in results.tunings.items():
            lines.append(
                [
                    f"{results.problem.name}: {label(name)}",
                    str(len(tuning.trials)),
                    number(tuning.steps_per_trial),
                    number(tuning.gradient_equivalents),
                    f"{tuning.hyperparameter} = {tuning.best.setting:.3g}",
                ]
            )
    if not lines:
        return ""
    header = ["tuned", "trials", "steps each, at most", "gradient-equivalents in all", "chosen"]
    text = (
        "Only the baselines' learning rates are tuned; everything else runs at its defaults. "
        "What the search cost is not part of any curve."
    )
    return f"<h2>Tuning</h2><p>{text}</p>{_table(header, lines)}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{content}</table></div>'
