"""Two folders of results: ratios, what one lacks, and what else differs."""

import csv
import dataclasses
import json
import math
import re
import sqlite3

import jax
import pandas as pd
import pytest
from comparisons import PROBLEM, finished, made, tabulated

from experiments.command_line import main
from experiments.compare.diff import (
    QUANTITIES,
    Folder,
    differences,
    means,
    ratios,
    read,
    two_folders,
)
from experiments.errors import UserError
from experiments.store import NAME


@pytest.fixture
def pair(tmp_path):
    """The same comparison twice; in B Newton takes half the seconds, Adam one step more."""
    before, after = tmp_path / "before", tmp_path / "after"
    lost = made("lbfgs", [1, 0.1])
    fast = made("newton", [1, 0.1], pace=5e-4)
    tabulated(before, finished(made("newton", [1, 0.1]), made("adam", [1, 0.4, 0.1]), lost))
    tabulated(after, finished(fast, made("adam", [1, 0.6, 0.4, 0.2])))
    return before, after


def change(folder, **entries) -> None:
    """Other entries of the configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_ratios_are_of_b_to_a_and_missing_where_one_did_not_arrive(pair):
    keys = ["problem", "optimizer", "target", "quantity"]
    found = ratios(*map(read, pair)).set_index(keys).ratio.to_dict()
    at = lambda optimizer, target, quantity: found["rosenbrock", optimizer, target, quantity]
    assert at("newton", 0.1, "steps") == 1
    assert at("newton", 0.1, "seconds") == pytest.approx(0.5)
    assert at("adam", 0.5, "steps") == 2
    assert math.isnan(at("adam", 0.1, "steps"))
    assert at("adam", 0.1, "last_value") == pytest.approx(2)
    assert ("rosenbrock", "lbfgs", 0.1, "steps") not in found


def compared(*pairs: tuple[float, float]) -> pd.DataFrame:
    """The ratios of these numbers."""
    rows = {"problem": "p", "optimizer": "o", "target": range(len(pairs)), "quantity": "seconds"}
    sides = [pd.DataFrame(rows | {"value": values}) for values in zip(*pairs, strict=True)]
    return ratios(*(Folder("", {}, side) for side in sides))


def test_the_mean_is_geometric_over_what_both_reached():
    found = compared((1.0, 4.0), (1.0, 1.0), (1.0, math.nan))
    assert means(found) == (
        "B took 2.00 times the seconds of A: geometric means over 2 targets that both reached."
    )
    assert means(found[2:]) == "There is no target that both reached."


@pytest.mark.parametrize(
    ("a", "b", "ratio"), [(2.0, 1.0, 0.5), (0.0, 0.0, 1.0), (0.0, 3.0, None), (math.nan, 3.0, None)]
)
def test_a_ratio_to_nothing_is_none(a, b, ratio):
    (found,) = compared((a, b)).ratio
    assert math.isnan(found) if ratio is None else found == ratio


def test_what_one_lacks_and_what_differs_is_said_in_sentences(pair):
    before, after = pair
    config = json.loads((after / "config.json").read_text())
    config["problems"]["rosenbrock"] |= {"seeds": [0, 1], "chosen": {"adam": {"rate": 2.0}}}
    versions, machine = config["versions"] | {"jax": "9.9"}, config["machine"] | {"cores": "96"}
    change(after, versions=versions, machine=machine, source="x", problems=config["problems"])
    change(before, interrupted=True)
    told = "\n".join(differences(*map(read, pair)))
    assert "A was interrupted." in told
    assert "The code of the library or of the experiments differs." in told
    assert f"versions, jax: {jax.__version__} in A, 9.9 in B." in told
    assert ", 96 in B." in told
    assert "B lacks the optimizer lbfgs." in told
    assert "rosenbrock, seeds: [0] in A, [0, 1] in B." in told
    assert "rosenbrock, chosen, adam, rate: not recorded in A, 2.0 in B." in told
    assert differences(read(before), read(before)) == ["A was interrupted.", "B was interrupted."]


def test_a_single_run_that_one_lacks_is_named(tmp_path):
    other = dataclasses.replace(PROBLEM, name="valley")
    runs = [made("newton", [1, 0.1]), made("adam", [1, 0.1])]
    whole = [finished(*runs), finished(*runs, problem=other)]
    tabulated(tmp_path / "a", *whole)
    tabulated(tmp_path / "b", whole[0], finished(runs[0], problem=other))
    a, b = read(tmp_path / "a"), read(tmp_path / "b")
    assert differences(a, b) == ["B lacks adam on valley."]
    assert differences(b, a) == ["A lacks adam on valley."]
    tabulated(tmp_path / "c", whole[0])
    assert differences(a, read(tmp_path / "c")) == ["B lacks the problem valley."]


def test_another_optimum_is_named(pair):
    before, after = pair
    config = json.loads((after / "config.json").read_text())
    config["problems"]["rosenbrock"]["optimum"] = 0.25
    change(after, problems=config["problems"])
    told = "\n".join(differences(*map(read, pair)))
    assert "rosenbrock, optimum: 0.0 in A, 0.25 in B." in told


def test_the_command_prints_and_writes_the_ratios(pair, tmp_path, capsys):
    before, after = pair
    out = tmp_path / "diff"
    assert main(["compare", str(before), str(after), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1.0e-03 → 5.0e-04 (0.50)" in printed
    assert "2 → -" in printed
    assert str(out / "diff.md") in printed
    with (out / "diff.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * len(QUANTITIES)  # optimizers, targets
    lines = [row for row in rows if row["quantity"] == "seconds" and row["optimizer"] == "newton"]
    assert [float(row["ratio"]) for row in lines] == pytest.approx([0.5, 0.5])
    page = (out / "diff.md").read_text()
    assert "B lacks the optimizer lbfgs." in page
    assert len(re.findall(r"\| Newton +\|", page)) == 2
    assert sorted(path.name for path in before.iterdir()) == sorted(
        path.name for path in after.iterdir()
    )


def test_problems_are_not_taken_for_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rosenbrock").mkdir()
    assert two_folders(["rosenbrock", "logistic"]) is None
    assert two_folders([]) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["before", "rosenbrock"], "'rosenbrock' is not"),
        (["before"], "not 1"),
        (["before", "after", "before"], "not 3"),
        (["before", "after", "--seeds", "2"], "nothing is run"),
        (["before", "broken"], "cannot be read"),
        (["before", "after", "--out", "before/config.json"], "Cannot write"),
    ],
)
def test_what_cannot_be_compared_is_answered_in_a_sentence(
    arguments, said, pair, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"problems": 1}')
    assert main(["compare", *arguments]) == 2
    answer = capsys.readouterr().err
    assert said in answer
    assert "Traceback" not in answer


def test_a_table_that_is_gone_or_lacks_a_column_is_named(pair):
    before, after = pair
    (before / NAME).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        read(before)
    with sqlite3.connect(after / NAME) as database:
        database.execute("alter table results rename column quantity to quality")
    database.close()
    with pytest.raises(UserError, match="quantity"):
        read(after)
