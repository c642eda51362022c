"""Reports of solves and fits, to be read."""

from __future__ import annotations

import html
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from secondorder.optimize._parameters import entry_names
from secondorder.optimize._records import Status

MOST = 12  # parameters in a report
BEYOND = 100  # standard error over value of a parameter without effect
SHOWN = 0.1  # the least correlation in one


def solution_text(solution: Any) -> str:
    """A solution in a few lines: status, steps, value, parameters."""
    leaves = jax.tree.leaves((solution.params, solution.value, solution.status))
    if any(isinstance(x, Tracer) or not hasattr(x, "shape") for x in leaves):
        return f"Solution(params={solution.params!r})"
    if np.ndim(solution.value):
        done = int(np.sum(solution.success))
        return f"Solution of {np.size(solution.value)} solves, {done} converged: {solution.message}"
    lines = [
        f"Solution by {_method(solution)}: {solution.message}",
        f"  steps {int(solution.steps)}, value {float(solution.value):.8g}, "
        f"gradient {float(solution.grad_norm):.2g}",
    ]
    named = _named(solution.params)
    width = max((len(name) for name, _ in named[:MOST]), default=0)
    lines += [f"  {name:<{width}}  {value:.8g}" for name, value in named[:MOST]]
    return "\n".join(lines + _rest(named))


def fit_text(fit: Any, style: str = "text") -> str:
    """A fit in a dozen lines; see ``Fit.report``."""
    if style not in _TABLES:
        raise ValueError(f"report got style={style!r}; pass one of {', '.join(_TABLES)}.")
    leaves = jax.tree.leaves(fit)
    if any(isinstance(x, Tracer) or not hasattr(x, "shape") for x in leaves):
        return f"Fit(params={fit.params!r})"
    if np.ndim(fit.degrees_of_freedom):
        return f"Fit of {np.size(fit.degrees_of_freedom)} data sets. {fit.solution.message}"
    names, values = zip(*_named(fit.params), strict=True)
    errors = [error for _, error in _named(fit.standard_errors)]
    kinds = _kinds(fit)
    table = [("parameter", "value", "standard error", "relative")]
    for name, value, error in list(zip(names, values, errors, strict=True))[:MOST]:
        usual = value and error and np.isfinite(error)
        share = kinds.get(name) or (f"{100 * error / abs(value):.2g} %" if usual else "")
        note = "held" if error == 0 else f"{error:.3g}" if np.isfinite(error) else "undetermined"
        table.append((name, f"{value:.8g}", note, share))
    solution = fit.solution
    freedom = float(fit.degrees_of_freedom)
    counts = f"{int(fit.observations)} observations"
    counts += f", {freedom:g} degrees of freedom" if np.isfinite(freedom) else ", sigma absolute"
    lines = [
        f"Fit by {_method(solution)}: {solution.message}",
        f"  {int(solution.steps)} steps, {counts}",
        f"  chi-square {float(fit.chi_square):.6g}, reduced {float(fit.reduced_chi_square):.6g}, "
        f"AIC {float(fit.aic):.5g}, BIC {float(fit.bic):.5g}",
    ]
    if fit.minima is not None:
        lines.append(_starts(fit.minima))
    related = _correlations(np.asarray(fit.correlation), names)
    if int(solution.status) == Status.NO_EFFECT:
        rows = zip(names, values, errors, strict=True)
        gone = [name for name, value, error in rows if not error <= BEYOND * abs(value)]
        lines.append(f"  without effect: {', '.join(gone[:MOST])}")
    after = [*_rest(names), *(["", f"  correlations: {related}"] if related else [])]
    written, beside = _TABLES[style]
    return "\n".join((*beside([*lines, ""]), *written(table), *beside(after)))


def _kinds(fit: Any) -> dict[str, str]:
    """The fixed and tied parameters by name, where the fit refers to its problem."""
    if fit.problem is None:
        return {}
    layout = fit.problem.task.layout
    shapes = map(np.shape, jax.tree.leaves(fit.params))
    kinds = [
        np.where(np.broadcast_to(m, s), "", "fixed")
        for m, s in zip(layout.masks, shapes, strict=True)
    ]
    for tie in layout.ties:
        kinds[tie.place.leaf][tie.place.entry or ...] = "tied"
    words = np.concatenate([k.ravel() for k in kinds]).tolist()
    return dict(zip(entry_names(fit.params), words, strict=True))


def _starts(minima: Any) -> str:
    """The distinct minima of several starts in a line."""
    count, chi = np.asarray(minima.count), np.asarray(minima.chi_square)
    found = [f"{c:.6g} ({n})" for c, n in zip(chi[count > 0], count[count > 0], strict=True)]
    ends = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    return f"  {count.size} starts, {len(found)} distinct minima: chi-square (starts) {ends}"


def _method(solution: Any) -> str:
    return "the given optimizer" if solution.method == "given" else solution.method


def _named(tree: Any) -> list[tuple[str, float]]:
    """The entries of a tree of parameters by their names."""
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)]
    return list(zip(entry_names(tree), np.concatenate([*leaves, []]).tolist(), strict=True))


def _rest(entries: Any) -> list[str]:
    return [f"  and {len(entries) - MOST} more"] if len(entries) > MOST else []


def _correlations(matrix: np.ndarray, names: tuple[str, ...]) -> str:
    """The largest correlations between two parameters."""
    rows, columns = np.tril_indices(len(names), -1)
    pairs = zip(matrix[rows, columns], rows, columns, strict=True)
    kept = [pair for pair in pairs if np.isfinite(pair[0]) and abs(pair[0]) >= SHOWN]
    kept.sort(key=lambda pair: -abs(pair[0]))
    return "; ".join(f"{names[j]}, {names[i]} {c:+.2f}" for c, i, j in kept[:6])


def _text(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    line = lambda row: "  " + "  ".join(map(str.ljust, row, widths)).rstrip()
    return [line(row) for row in table]


def _markdown(table: list[tuple[str, ...]]) -> list[str]:
    escaped = lambda cell: cell.replace("|", r"\|")
    line = lambda row: f"| {' | '.join(map(escaped, row))} |"
    return [line(table[0]), line(("---",) * len(table[0])), *map(line, table[1:])]


# A bracket after the end of a row would be its optional argument.
_LATEX = (
    {c: rf"\{c}" for c in "%_#&${}"}
    | {
        c: rf"\text{n}{{}}"
        for c, n in zip(
            "\\^~<>", ("backslash", "asciicircum", "asciitilde", "less", "greater"), strict=True
        )
    }
    | {"[": "{[}"}
)


def _latex(table: list[tuple[str, ...]]) -> list[str]:
    line = lambda row: f"  {' & '.join(cell.translate(str.maketrans(_LATEX)) for cell in row)} \\\\"
    rows = [r"\begin{tabular}{lrrr}", line(table[0]), r"  \hline", *map(line, table[1:])]
    return [*rows, r"\end{tabular}"]


def _html(table: list[tuple[str, ...]]) -> list[str]:
    def line(row: tuple[str, ...], kind: str) -> str:
        return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in row)}</tr>"

    rows = [line(table[0], "th"), *(line(row, "td") for row in table[1:])]
    return ["<table>", *rows, "</table>"]


def _preformatted(lines: list[str]) -> list[str]:
    text = html.escape("\n".join(lines).strip("\n"))
    return [f"<pre>{text}</pre>"] if text else []


# The table in each style, and the lines before and after it.
_TABLES = {
    "text": (_text, lambda lines: lines),
    "markdown": (_markdown, lambda lines: lines),
    "latex": (_latex, lambda lines: [f"% {line.strip()}".rstrip() for line in lines if line]),
    "html": (_html, _preformatted),
}
