"""Reports of solves and fits, to be read."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

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
    table = [("parameter", "value", "standard error", "relative")]
    for name, value, error in list(zip(names, values, errors, strict=True))[:MOST]:
        share = f"{100 * error / abs(value):.2g} %" if value and np.isfinite(error) else ""
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
    related = _correlations(np.asarray(fit.correlation), names)
    if int(solution.status) == Status.NO_EFFECT:
        rows = zip(names, values, errors, strict=True)
        gone = [name for name, value, error in rows if not error <= BEYOND * abs(value)]
        lines.append(f"  without effect: {', '.join(gone[:MOST])}")
    text = "\n".join((*lines, "", *_TABLES[style](table), *_rest(names)))
    return text + (f"\n\n  correlations: {related}" if related else "")


def _method(solution: Any) -> str:
    return "the given optimizer" if solution.method == "given" else solution.method


def _named(tree: Any) -> list[tuple[str, float]]:
    """The entries of a tree of parameters by their paths."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        array = np.asarray(leaf, np.float64)
        for place in np.ndindex(array.shape):
            inner = f"[{', '.join(map(str, place))}]" if place else ""
            found.append((f"{name}{inner}" or "parameter", float(array[place])))
    return found


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
    line = lambda row: f"| {' | '.join(row)} |"
    return [line(table[0]), line(("---",) * len(table[0])), *map(line, table[1:])]


def _latex(table: list[tuple[str, ...]]) -> list[str]:
    escaped = lambda cell: cell.replace("%", r"\%").replace("_", r"\_")
    line = lambda row: f"  {' & '.join(map(escaped, row))} \\\\"
    rows = [r"\begin{tabular}{lrrr}", line(table[0]), r"  \hline", *map(line, table[1:])]
    return [*rows, r"\end{tabular}"]


_TABLES = {"text": _text, "markdown": _markdown, "latex": _latex}
