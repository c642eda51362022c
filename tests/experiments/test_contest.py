"""A benchmark of runs that is killed goes on, and runs again what was set otherwise."""

import contextlib
import dataclasses
import functools
import json
import math
import sqlite3
from pathlib import Path

import jax.numpy as jnp
import optax
import pandas as pd
import pytest
from lines import LINE, plain

from experiments.benchmarks import BENCHMARKS, networks
from experiments.benchmarks.networks import QUICK, Field, contest
from experiments.benchmarks.settings import SETTINGS
from experiments.benchmarks.tables import Request
from experiments.command_line import main
from experiments.engine import Progress
from experiments.optimizer import Search
from experiments.provenance import source_fingerprint
from experiments.store import NAME, SECONDS, Store

STEPS, TRIAL_STEPS = 6, 4
TINY = dataclasses.replace(
    LINE,
    steps={"first-order": STEPS},
    tuning_steps=TRIAL_STEPS,
    look_every=3,
    metrics=lambda params, data: {"error": jnp.linalg.norm(params)},
)
ONE = QUICK.trials * TRIAL_STEPS + QUICK.seeds * STEPS  # steps of one that is tuned


class Killed(Exception):
    """The end of a process, as far as a test can have one of its own."""


def contestants(problem):
    del problem
    momentum = SETTINGS.get(("line", "heavy"), {}).get("momentum", 0.5)

    def build(learning_rate, momentum=None):
        return optax.with_extra_args_support(optax.sgd(learning_rate, momentum))

    light = plain(build, search={"learning_rate": Search((1e-3, 1e-2, 1e-1))})
    heavy = dataclasses.replace(light, build=functools.partial(build, momentum=momentum))
    return {name: dataclasses.replace(o, name=name) for name, o in
            (("light", light), ("heavy", heavy))}  # fmt: skip


FIELD = Field({"line": TINY}, contestants, "light", ("line",))


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Runs the contest in a folder; the steps it took, which are at most so many."""

    def played(folder: str, most: float = math.inf, fresh: bool = False) -> list[tuple[str, int]]:
        real, taken = Progress.step, []

        def step(self, prepared, *rest):
            if len(taken) == most:
                raise Killed
            taken.append((prepared.optimizer.name, self.count))
            real(self, prepared, *rest)

        # Whoever is to be killed writes down every step.
        seconds = 0.0 if most < math.inf else SECONDS
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "step", step)
            patch.setattr(networks, "Store", functools.partial(Store, checkpoint_seconds=seconds))
            with pytest.raises(Killed) if most < math.inf else contextlib.nullcontext():
                contest(Request(quick=True, folder=tmp_path / folder, fresh=fresh), FIELD)
        return taken

    return played


def everything(folder: Path) -> dict:
    database = sqlite3.connect(folder / NAME)
    rows = database.execute("select optimizer, part, head, content from kept").fetchall()
    database.close()
    return {row[:3]: json.loads(row[3]) for row in rows}


def kept(folder: Path) -> dict:
    """Everything in the store but what the clock says."""
    found = everything(folder)
    for content in found.values():
        if "columns" in content:
            del content["columns"]["seconds"], content["compile_seconds"]
    return found


def test_a_contest_that_is_killed_repeats_no_step_and_keeps_the_same(play, tmp_path, capsys):
    whole = play("whole")
    assert whole == play("whole", fresh=True)
    assert len(whole) == 2 * ONE
    # In the first one's second trial, in its run, in the other one's last trial.
    stops = (TRIAL_STEPS + 2, ONE - 2 - (TRIAL_STEPS + 2), ONE - STEPS - 1 + 2)
    parts = [play("killed", stop) for stop in stops]
    assert [part[-1][0] for part in parts] == ["light", "light", "heavy"]
    parts.append(play("killed"))
    assert [step for part in parts for step in part] == whole
    assert kept(tmp_path / "killed") == kept(tmp_path / "whole")
    assert not any("under way" in part for *_, part in Store(tmp_path / "killed").parts())
    capsys.readouterr()
    assert play("killed") == []
    finished = 2 * (QUICK.trials + QUICK.seeds)
    assert f"killed: {finished} finished parts" in capsys.readouterr().out


def test_what_was_set_otherwise_is_run_again_and_nothing_else(play, monkeypatch):
    assert len(play("runs")) == 2 * ONE
    monkeypatch.setitem(SETTINGS, ("line", "heavy"), {"momentum": 0.9})
    again = play("runs")
    assert {name for name, _ in again} == {"heavy"}
    assert len(again) == ONE


def test_the_page_of_a_contest_that_went_on_is_that_of_one_that_never_stopped(play, tmp_path):
    play("runs", ONE + 1)
    page = contest(Request(quick=True, folder=tmp_path / "runs"), FIELD)
    whole = contest(Request(quick=True, folder=tmp_path / "whole"), FIELD)
    assert page.words == whole.words
    (mine,), (other,) = page.tables.values(), whole.tables.values()
    untimed = [name.split()[0] not in ("s", "ms", "of") for name in mine.columns]
    pd.testing.assert_frame_equal(mine.loc[:, untimed], other.loc[:, untimed])


def test_steps_that_are_slow_are_not_timed_again_after_the_runs(play, tmp_path, monkeypatch):
    play("runs")
    monkeypatch.setattr(networks, "SLOW", 0.0)
    monkeypatch.setattr(networks, "race", lambda *given: pytest.fail("was timed again"))
    report = contest(Request(quick=True, folder=tmp_path / "runs"), FIELD)
    (table,) = report.tables.values()
    store = Store(tmp_path / "runs")
    for shown, unit in zip(table["ms a step"], units_of(store), strict=True):
        seconds = unit["columns"]["seconds"][-1]
        assert float(shown) == pytest.approx(1e3 * seconds / STEPS, rel=1e-2)


def units_of(store: Store) -> list[dict]:
    """The runs of the first seed, in the order of the table."""
    found = {key[:2]: content for key, content in everything(store.folder).items()}
    return [found[name, "seed-0"] for name in ("light", "heavy")]


@pytest.mark.parametrize("quick", [False, True])
def test_an_interrupted_benchmark_says_whether_anything_is_kept(
    quick, tmp_path, monkeypatch, capsys
):
    asked = []

    def stopped(request):
        asked.append(request)
        if request.fresh:
            Store(request.folder)
        raise KeyboardInterrupt

    monkeypatch.setitem(BENCHMARKS, "networks", stopped)
    command = ["bench", "networks", "--out", str(tmp_path), *["--quick"] * quick]
    assert main(command) == 130
    assert "before the first run" in capsys.readouterr().err
    assert main([*command, "--fresh"]) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert {request.folder for request in asked} == {tmp_path / ("networks" + "-quick" * quick)}


def test_a_change_of_who_races_changes_the_fingerprint(tmp_path):
    assert FIELD.source == source_fingerprint(Path(__file__)) != source_fingerprint()
    file = tmp_path / "contestants.py"
    file.write_text("RATES = 1")
    before = source_fingerprint(file)
    file.write_text("RATES = 2")
    assert source_fingerprint(file) != before
