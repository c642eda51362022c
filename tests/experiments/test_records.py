"""What is finished comes back as it was, or is named, set aside and run again."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.bar import Bar
from experiments.compare.plan import Plan
from experiments.compare.run import Comparison
from experiments.engine import Run
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from experiments.records import Store
from experiments.tuning import Trial

SETTINGS = {"steps": 3, "versions": {"jax": "any"}, "pair": (1, 2)}
RUN_FILE, TRIALS_FILE = "runs/p--o--seed-0.json", "runs/p--o--tuning.json"


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
    store.save_trials("p", "o", TRIALS, SETTINGS)
    return store


def test_records_come_back_to_the_last_bit(store):
    found = store.load_run("p", "o", 0, SETTINGS)
    assert found is not None
    for name, column in made().columns.items():
        assert found.columns[name].dtype == column.dtype
        assert found.columns[name].tobytes() == column.tobytes()
    others = lambda run: {k: v for k, v in vars(run).items() if k != "columns"}
    assert others(found) == others(made())
    assert store.load_trials("p", "o", SETTINGS) == TRIALS


def test_records_of_other_settings_are_not_used(store, capsys):
    assert store.load_run("p", "o", 0, SETTINGS | {"steps": 4}) is None
    assert store.load_trials("p", "o", SETTINGS | {"steps": 4}) == []
    assert store.load_run("p", "o", 0, SETTINGS) is not None
    assert not capsys.readouterr().err


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shorten(content) -> None:
    part = content["run"]["columns"]["value"] if "run" in content else content["trials"]
    part.pop()


DAMAGES = {
    "a flipped bit": flip,
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "nothing": lambda path: path.write_bytes(b""),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "a column too short": lambda path: edit(path, shorten),
    "no checksum": lambda path: edit(path, lambda content: content.pop("checksum")),
    "no JSON": lambda path: path.write_bytes(b"\xff\xfe"),
    "JSON of something else": lambda path: path.write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", [RUN_FILE, TRIALS_FILE], ids=["run", "tuning"])
def test_a_damaged_record_is_named_and_set_aside(name, damage, store, capsys):
    path = store.folder / name
    damage(path)
    damaged = path.read_bytes()
    load = lambda: (
        store.load_run("p", "o", 0, SETTINGS)
        if name == RUN_FILE
        else store.load_trials("p", "o", SETTINGS)
    )
    assert not load()
    said = capsys.readouterr().err
    assert f"{path} is corrupt" in said
    assert not path.exists()
    assert path.with_name(path.name + ".corrupt").read_bytes() == damaged
    assert not load()
    assert not capsys.readouterr().err


def test_every_single_bit_of_a_record_counts(store):
    path = store.folder / RUN_FILE
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert store.load_run("p", "o", 0, SETTINGS) is None, content[:place]


def test_a_damaged_record_is_run_again_and_the_rest_used(tmp_path, capsys):
    names = ("gauss-newton", "levenberg-marquardt")
    plan = Plan([PROBLEMS["rosenbrock"]], [OPTIMIZERS[name] for name in names], steps=4)

    def compare() -> int:
        bar = Bar(disable=True)
        Comparison(plan, Store(tmp_path), bar).run()
        return bar.skipped

    assert compare() == 0
    path = tmp_path / "runs/rosenbrock--gauss-newton--seed-0.json"
    before = read(path)
    flip(path)
    assert compare() == 1
    assert f"{path} is corrupt" in capsys.readouterr().err
    assert read(path) == before
    assert path.with_name(path.name + ".corrupt").exists()


def read(path: Path) -> dict:
    """A run but for what a clock said."""
    content = json.loads(path.read_text())
    del content["run"]["columns"]["seconds"], content["run"]["compile_seconds"]
    return content["run"]
