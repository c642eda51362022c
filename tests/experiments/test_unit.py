"""A comparison that is killed while it tunes keeps the trials that ended, and the one under way."""

import contextlib
import dataclasses
import math
from pathlib import Path

import pytest

from experiments.bar import Bar
from experiments.compare.plan import Plan
from experiments.compare.run import Comparison
from experiments.engine import LEAP, Progress
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from experiments.store import SECONDS, Store
from experiments.tuning import TRIALS

LEAPS = 3  # of a trial
STEPS, TAKEN = LEAPS * LEAP, 2 * LEAPS + 1  # the third trial is killed on its way


class Killed(Exception):
    """The end of a process, as far as a test can have one of its own."""


def compare(folder: Path, monkeypatch, most: float = math.inf):
    """Results, the parts found finished, and the steps and leaps taken, at most so many."""
    taken = []

    def counted(real):
        def move(self, *rest):
            if len(taken) == most:
                raise Killed
            taken.append(self.count)
            real(self, *rest)

        return move

    plan = Plan([PROBLEMS["rosenbrock"]], [OPTIMIZERS["adam"]], steps=STEPS)
    bar = Bar(disable=True)
    store = Store(folder, checkpoint_seconds=0.0 if most < math.inf else SECONDS)
    comparison = Comparison(plan, store, bar)
    with monkeypatch.context() as patch:
        for name in ("step", "leap"):
            patch.setattr(Progress, name, counted(getattr(Progress, name)))
        with pytest.raises(Killed) if most < math.inf else contextlib.nullcontext():
            comparison.run()
    return comparison.results[0], bar.skipped, taken


def test_a_tuning_that_is_killed_repeats_no_step(tmp_path, monkeypatch):
    nothing, _, before = compare(tmp_path / "killed", monkeypatch, TAKEN)
    assert not nothing.tunings
    resumed, skipped, after = compare(tmp_path / "killed", monkeypatch)
    whole, none, taken = compare(tmp_path / "whole", monkeypatch)
    assert (skipped, none) == (2, 0)
    assert before + after == taken
    assert len(taken) == LEAPS * TRIALS + STEPS
    assert resumed.tunings == whole.tunings
    for column in whole.runs[0].columns.keys() - {"seconds"}:
        assert (whole.runs[0].columns[column] == resumed.runs[0].columns[column]).all()
    assert not any("under way" in part for *_, part in Store(tmp_path / "killed").parts())


def test_whatever_changes_a_run_is_among_its_settings():
    (unit,) = Plan([PROBLEMS["rosenbrock"]], [OPTIMIZERS["adam"]]).units
    others = {
        "problem": PROBLEMS["quadratic"],
        "optimizer": OPTIMIZERS["newton"],
        "steps": unit.steps - 1,
        "source": "other",
        "trials": unit.trials - 1,
        "every": 2,
        "trial_every": unit.trial_every + 1,
        "details": {"momentum": 0.8},
    }
    fields = {field.name for field in dataclasses.fields(unit)}
    assert fields - others.keys() == {"seeds"}  # each of which has a run of its own
    for name, other in others.items():
        assert dataclasses.replace(unit, **{name: other}).settings != unit.settings, name
