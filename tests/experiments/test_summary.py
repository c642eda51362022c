"""Medians over seeds, failures counted, and sentences that name the winner."""

import dataclasses
import math

import pandas as pd
import pytest
from comparisons import PROBLEM, finished, made

from experiments.compare.verdict import baselines, remarks, verdict
from experiments.engine import Status
from experiments.figures import convergence_figure
from experiments.figures.style import APART, rows_of
from experiments.optimizers import OPTIMIZERS
from experiments.report import latex_table, markdown_table, text_table
from experiments.results import KEYS, add_measure, best_value, long, number


def test_the_summary_is_the_median_over_seeds():
    falls = ([1, 0.5, 0.1], [1, 0.9, 0.5, 0.4, 0.1], [1, 0.9, 0.9, 0.5, 0.4, 0.4])
    table = finished(*(made("adam", list(v), seed) for seed, v in enumerate(falls))).table
    loose, tight = table.itertuples()
    assert (loose.target, loose.reached, loose.steps) == (0.5, 3, 2)
    assert (tight.target, tight.reached, tight.steps) == (0.1, 2, 4)


def test_a_target_missed_by_most_seeds_costs_infinity():
    falls = ([1, 0.1], [1, 0.6], [1, 0.7])
    table = finished(*(made("adam", list(v), seed) for seed, v in enumerate(falls))).table
    assert table.reached[0] == 1
    assert table.steps[0] == math.inf


def test_failed_runs_are_counted_and_drawn_with_a_cross():
    results = finished(
        made("adam", [1, 0.5, 0.1]),
        made("adam", [1, 5.0, math.inf], 1, status=str(Status.DIVERGED)),
    )
    assert list(results.table.failures) == [1, 1]
    figure = convergence_figure(PROBLEM, results.runs)
    assert any(line.get_marker() == "x" for line in figure.axes[0].lines)
    assert any(
        "1 of 2 failed" in text.get_text() for text in figure.subfigs[0].legends[0].get_texts()
    )


def test_more_curves_than_stay_apart_are_drawn_in_two_rows_on_the_same_axes():
    few = ["adam", "newton", "gauss-newton"]
    several = list(OPTIMIZERS)[: APART + 1]
    assert len(several) > APART
    for names, rows in ((few, 1), (several, 2)):
        results = finished(*(made(name, [1, 0.5, 0.1]) for name in names))
        figure = convergence_figure(PROBLEM, results.runs)
        assert len(figure.axes) == 3 * rows
        drawn = [line.get_label() for axes in figure.axes[::3] for line in axes.lines]
        assert sorted(drawn) == sorted(OPTIMIZERS[name].label for name in names)
        for column in range(3):
            assert len({axes.get_xlim() for axes in figure.axes[column::3]}) == 1


def test_a_legend_of_long_names_takes_as_many_rows_as_it_needs():
    failed = str(Status.DIVERGED)
    names = ("gradient-descent", "gradient-descent-line-search", "adam", "lbfgs", "newton")
    results = finished(*(made(name, [1, 5.0, math.inf], status=failed) for name in names))
    figure = convergence_figure(PROBLEM, results.runs)
    (legend,) = figure.subfigs[0].legends
    assert len(legend.get_texts()) == len(names)
    assert legend.get_window_extent().width <= figure.bbox.width


def test_a_vanished_gradient_far_from_the_optimum_is_no_convergence():
    run = made("gradient-descent", [1, 0.9, 0.9], status=str(Status.CONVERGED))
    add_measure(PROBLEM, [run], optimum=0.0)
    assert run.status == Status.ELSEWHERE
    assert run.failed


def test_the_optimum_is_never_above_the_best_value_seen():
    runs = [made("adam", [1, 0.25, math.nan])]
    unknown = dataclasses.replace(PROBLEM, optimum=None)
    assert best_value(unknown, runs) == 0.25
    assert best_value(PROBLEM, runs) == 0.0


def test_the_verdict_says_plainly_where_a_baseline_wins():
    results = finished(
        made("newton", [1, 0.3, 0.1], price=100.0),
        made("lbfgs", [1, 0.9, 0.5, 0.2, 0.1], pace=1e-4),
        made("gradient-descent", [1, 0.9, 0.8]),
    )
    assert verdict(results) == (
        "Newton wins in steps (2); the baseline L-BFGS (Optax) wins in gradient-equivalents (4) "
        "and seconds (4.0e-04)."
    )
    assert remarks(results) == ["Not there within its steps: Gradient descent (best fixed step)."]


def test_where_baselines_are_the_cheapest_is_listed_by_measure():
    won = finished(
        made("newton", [1, 0.3, 0.1], price=100.0), made("lbfgs", [1, 0.5, 0.2, 0.1], pace=1e-4)
    )
    lost = finished(made("newton", [1, 0.1], price=1.0, pace=1e-5), made("adam", [1, 0.5, 0.1]))
    tied = finished(made("lbfgs", [1, 0.1]), made("limited-memory-bfgs", [1, 0.1]))
    assert baselines([won, lost, tied]) == [
        "In steps 0 of 3.",
        f"In gradient-equivalents 1 of 3: L-BFGS (Optax): {PROBLEM.title}.",
        f"In seconds 1 of 3: L-BFGS (Optax): {PROBLEM.title}.",
    ]


def test_the_verdict_names_everyone_who_ties():
    results = finished(made("newton", [1, 0.1]), made("gauss-newton", [1, 0.1], price=3.0))
    assert verdict(results) == (
        "Newton and Gauss-Newton win in steps (1) and seconds (1.0e-03); "
        "Newton wins in gradient-equivalents (1)."
    )


def test_among_baselines_alone_none_is_called_one():
    results = finished(made("adam", [1, 0.1]), made("lbfgs", [1, 0.2, 0.1], pace=1e-4))
    assert verdict(results).startswith("Adam (best learning rate) wins in steps (1)")
    assert "baseline" not in verdict(results)


def test_the_verdict_where_nobody_arrives_is_that():
    results = finished(made("adam", [1, 0.9]), made("newton", [1, 0.8]))
    assert verdict(results).startswith("No optimizer reached any target")
    assert remarks(results) == []


def test_fewer_steps_are_weighed_against_dearer_ones():
    results = finished(made("newton", [1, 0.1], price=30.0), made("adam", [1, 0.9, 0.8, 0.1]))
    assert remarks(results) == [
        "Newton took 3 times fewer steps than Adam (best learning rate), "
        "and each cost 30 times as many gradients."
    ]


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (math.inf, "-"),
        (0.0, "0"),
        (9.0, "9"),
        (1234.5, "1,234"),
        (0.0123, "0.012"),
        (3e-6, "3.0e-06"),
    ],
)
def test_numbers_are_short(x, shown):
    assert number(x) == shown


def test_columns_are_aligned():
    rows = [["a", "100", "x"], ["longer", "2", "yy"]]
    lines = text_table(pd.DataFrame(rows, columns=["name", "n", "end"])).splitlines()
    assert lines[0].index("n", 5) == lines[3].index("2")


def test_a_bar_within_a_cell_does_not_end_it_in_markdown():
    text = markdown_table(pd.DataFrame([["a|b", "c"]], columns=["|f|", "b"]))
    assert [line.replace(" ", "") for line in text.splitlines()[::2]] == [r"|\|f\||b|", r"|a\|b|c|"]


def test_a_latex_table_says_what_the_others_say_in_characters_that_latex_takes():
    row = ["50% & more", "-", "x ≤ y"]
    text = latex_table(pd.DataFrame([row], columns=["a_b", "n", "end"]), "Cost to f ≤ 1e-3")
    assert r"\begin{tabular}{lrl}" in text
    assert r"\caption{Cost to f $\le$ 1e-3}" in text
    assert r"a\_b & n & end \\" in text
    assert r"50\% \& more & -- & x $\le$ y \\" in text
    assert text.isascii()
    assert text.count(r"\begin{") == text.count(r"\end{")


def test_the_long_table_has_one_number_a_row_and_gives_back_the_wide_one():
    table = finished(made("newton", [1, 0.1]), made("adam", [1, 0.4])).table
    found = long(table)
    assert list(found.columns) == [*KEYS, "quantity", "value"]
    assert len(found) == len(table) * (len(table.columns) - len(KEYS))
    wide = found.pivot(index=KEYS, columns="quantity", values="value").reset_index()
    again = table[KEYS].merge(wide, on=KEYS)[table.columns].astype(table.dtypes)
    pd.testing.assert_frame_equal(again, table, check_names=False)


def test_every_optimizer_has_a_look_of_its_own_and_in_its_row_a_marker():
    looks = [optimizer.look for optimizer in OPTIMIZERS.values()]
    assert len({look.colour for look in looks}) == len(looks)
    for row in rows_of(OPTIMIZERS):
        assert len({OPTIMIZERS[name].look.marker for name in row}) == len(row)
