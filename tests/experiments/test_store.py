"""What is finished comes back as it was, or is named, set aside and run again."""

import dataclasses
import math
import sqlite3
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments.bar import Bar
from experiments.compare.plan import Plan
from experiments.compare.run import Comparison
from experiments.engine import Run
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from experiments.store import NAME, Store, read_table
from experiments.tuning import Trial

SETTINGS = {"steps": 3, "versions": {"jax": "any"}, "pair": (1, 2)}
NAMES = ("p", "o")


def made() -> Run:
    columns = {
        "step": np.arange(3),
        "value": np.array([0.1 + 0.2, 1e-310, math.inf]),
        "gain": np.array([math.nan, -0.0, 1 / 3]),
    }
    return Run("p", "o", 0, "diverged", columns, {"learning_rate": 0.1}, 1.5, side_by_side=2)


TRIALS = [Trial(0.1, math.inf, 7, False, 7.0), Trial(1 / 3, 0.5, 3, True, 3.5)]


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path)
    store.save_run(made(), SETTINGS)
    store.save_trials(NAMES, TRIALS, SETTINGS)
    return store


def test_records_come_back_to_the_last_bit(store):
    found = store.load_run(NAMES, 0, SETTINGS)
    assert found is not None
    for name, column in made().columns.items():
        assert found.columns[name].dtype == column.dtype
        assert found.columns[name].tobytes() == column.tobytes()
    others = lambda run: {k: v for k, v in vars(run).items() if k != "columns"}
    assert others(found) == others(made())
    assert store.load_trials(NAMES, SETTINGS) == TRIALS


def test_the_parameters_at_the_end_of_a_run_are_kept_for_whoever_has_others_like_them(
    tmp_path, x64
):
    end = {"w": jnp.array([1 / 3, 2.0]), "b": jnp.float32(0.1), "n": jnp.arange(3)}
    store = Store(tmp_path)
    store.save_run(dataclasses.replace(made(), end=end), SETTINGS)
    for like in (jax.tree.map(jnp.zeros_like, end), None):
        found = store.load_run(NAMES, 0, SETTINGS, like)
        assert found is not None
        chex.assert_trees_all_equal(found.end, end if like else None)
        assert found.hyperparameters == made().hyperparameters


def test_records_of_other_settings_are_not_used(store, capsys):
    assert store.load_run(NAMES, 0, SETTINGS | {"steps": 4}) is None
    assert store.load_trials(NAMES, SETTINGS | {"steps": 4}) == []
    assert store.load_run(NAMES, 0, SETTINGS) is not None
    assert not capsys.readouterr().err


def change(path: Path, part: str, column: str, content: bytes | str) -> None:
    """What a fault of a disk, or a hand, does to a value."""
    with sqlite3.connect(path) as database:
        database.execute(f"update kept set {column} = ? where part = ?", (content, part))
    database.close()


def content_of(path: Path, part: str, column: str = "content") -> str:
    database = sqlite3.connect(path)
    (found,) = database.execute(f"select {column} from kept where part = ?", (part,)).fetchone()
    database.close()
    return found


DAMAGES = {
    "a flipped bit": lambda text: text.replace("0.5", "0.4") + " " * ("0.5" not in text),
    "half of it": lambda text: text[: len(text) // 2],
    "nothing": lambda text: "",
    "no text": lambda text: b"\xff\xfe",
    "JSON of something else": lambda text: "[1, 2]",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("part", ["seed-0", "tuning"])
def test_a_damaged_record_is_named_and_run_again(part, damage, store, capsys):
    path = store.folder / NAME
    change(path, part, "content", damage(content_of(path, part)))
    loads = {
        "seed-0": lambda: store.load_run(NAMES, 0, SETTINGS),
        "tuning": lambda: store.load_trials(NAMES, SETTINGS),
    }
    load = loads[part]
    assert not load()
    said = capsys.readouterr().err
    assert f"p · o · {part} in {path} is corrupt" in said
    assert not load()
    assert not capsys.readouterr().err
    assert len(store.parts()) == 1


@pytest.mark.parametrize("column", ["head", "content", "arrays", "digest"])
def test_every_column_of_a_record_counts(column, store):
    change(store.folder / NAME, "seed-0", column, "x")
    assert store.load_run(NAMES, 0, SETTINGS) is None


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\7" * 5000])
def test_a_file_that_is_no_database_any_more_is_set_aside(content, tmp_path, capsys):
    (tmp_path / NAME).write_bytes(content)
    store = Store(tmp_path)
    assert "is set aside" in capsys.readouterr().err
    assert (tmp_path / f"{NAME}.corrupt").read_bytes() == content
    store.save_run(made(), SETTINGS)
    assert Store(tmp_path).load_run(NAMES, 0, SETTINGS) is not None
    assert not capsys.readouterr().err


def test_a_table_keeps_its_numbers_to_the_last_bit_and_its_words(tmp_path):
    values = [0.1 + 0.2, math.nan, 7, "step limit", True]
    Store(tmp_path).save_table("results", pd.DataFrame({"quantity": "q", "value": values}))
    found = read_table(tmp_path, "results").value.tolist()
    assert found[0] == 0.1 + 0.2
    assert pd.isna(found[1])
    assert found[2:] == values[2:]


def test_two_stores_of_one_folder_see_what_the_other_wrote(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    first.save_run(made(), SETTINGS)
    assert second.load_run(NAMES, 0, SETTINGS) is not None
    second.drop(NAMES, "seed-0")
    assert first.load_run(NAMES, 0, SETTINGS) is None


def test_a_damaged_record_is_run_again_and_the_rest_used(tmp_path, capsys):
    names = ("gauss-newton", "levenberg-marquardt")
    plan = Plan([PROBLEMS["rosenbrock"]], [OPTIMIZERS[name] for name in names], steps=4)

    def compare():
        bar = Bar(disable=True)
        comparison = Comparison(plan, Store(tmp_path), bar)
        comparison.run()
        runs = comparison.results[0].runs
        return bar.skipped, [run.columns["value"].tolist() for run in runs]

    skipped, before = compare()
    assert skipped == 0
    with sqlite3.connect(tmp_path / NAME) as database:
        database.execute("update kept set content = '{}' where optimizer = 'gauss-newton'")
    database.close()
    assert compare() == (1, before)
    assert "rosenbrock · gauss-newton · seed-0" in capsys.readouterr().err
