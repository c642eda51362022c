"""Workers: the same records from several processes, and what becomes of one that dies."""

import csv
import multiprocessing
from pathlib import Path

import pytest

from experiments.bar import Bar
from experiments.command_line import main
from experiments.compare import side_by_side as module
from experiments.compare.plan import Plan
from experiments.compare.run import Comparison
from experiments.compare.side_by_side import Terms, Told, side_by_side
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from experiments.store import Store
from experiments.unit import collect

NAMES = ("gauss-newton", "levenberg-marquardt")


def plan(steps: int = 3) -> Plan:
    return Plan([PROBLEMS["rosenbrock"]], [OPTIMIZERS[name] for name in NAMES], steps=steps)


class Watched(Bar):
    """A bar that does something as soon as it is told of a unit's work."""

    def __init__(self, at: str, act):
        super().__init__(disable=True)
        self.at, self.act, self.told = at, act, []

    def set_description_str(self, desc=None, refresh=True):
        if self.at in str(desc) and self.at not in self.told:
            self.told.append(self.at)
            self.act()


def serve(folder: Path, *orders) -> list[Told]:
    """What a worker answers to orders, in this very process."""
    ours, theirs = multiprocessing.Pipe()
    for order in orders:
        ours.send(order)
    module._serve(theirs, Terms(folder, 15.0, 2, seeds=1, steps=3))
    theirs.close()
    told = []
    while ours.poll():
        try:
            told.append(ours.recv())
        except EOFError:
            break
    ours.close()
    return told


def test_a_worker_keeps_what_it_ran_and_says_that_it_was_not_alone(tmp_path):
    told = serve(tmp_path, ("rosenbrock", "gauss-newton"), None)
    assert told[-1] == Told("ended", None)
    assert [each.method for each in told].count("update") == 1
    (run,) = collect(plan().units[0], Store(tmp_path)).runs
    assert run.side_by_side == 2
    again = serve(tmp_path, ("rosenbrock", "gauss-newton"), None)
    assert again == [Told("skip", 1), Told("ended", None)]

    comparison = Comparison(plan(), Store(tmp_path), Bar(disable=True))
    comparison.run()
    (note,) = comparison.notes()
    assert "seconds of 1 of 2 runs were measured with 2 running at a time" in note


def test_an_error_in_a_worker_is_told_and_the_next_unit_run(tmp_path, monkeypatch):
    real = module.work

    def work(unit, store, bench):
        if unit.optimizer.name == "newton":
            raise ValueError("no such thing")
        real(unit, store, bench)

    monkeypatch.setattr(module, "work", work)
    told = serve(tmp_path, ("rosenbrock", "newton"), ("rosenbrock", "gauss-newton"), None)
    assert [each.argument for each in told if each.method == "ended"] == [
        "ValueError: no such thing",
        None,
    ]


def test_a_worker_ends_when_nobody_listens_any_more(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    module._serve(theirs, Terms(tmp_path, 15.0, 2, seeds=1, steps=3))
    theirs.close()


@pytest.mark.slow
def test_side_by_side_gives_the_records_of_one_by_one(tmp_path, capsys):
    arguments = ["compare", "curve-fit", "--optimizers", *NAMES, "adam", "--steps", "12"]
    for jobs in ("1", "2"):
        assert main([*arguments, "--jobs", jobs, "--out", str(tmp_path / jobs)]) == 0
    told = capsys.readouterr()
    assert "3 of 3 runs were measured with 2 running at a time" in told.err
    assert "Used again" not in told.out
    one, two = (records(tmp_path / jobs / "records.csv") for jobs in ("1", "2"))
    assert one == two
    for name in ("report.html", "report.md", "config.json"):
        assert "running at a time" in (tmp_path / "2" / name).read_text()
        assert "running at a time" not in (tmp_path / "1" / name).read_text()


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_named_and_the_others_go_on(tmp_path):
    def kill():
        (child,) = multiprocessing.active_children()
        child.kill()

    store, (first, second) = Store(tmp_path), plan().units
    failed = side_by_side([first, second], plan(), store, Watched("compiling", kill), jobs=1)
    assert failed == {"rosenbrock · gauss-newton": "its process ended by SIGKILL"}
    assert not collect(first, store).runs
    assert collect(second, store).is_all_of(second)


@pytest.mark.slow
def test_an_interruption_ends_the_workers_and_keeps_what_is_finished(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    store, (first, second) = Store(tmp_path), plan().units
    with pytest.raises(KeyboardInterrupt):
        side_by_side([first, second], plan(), store, Watched(NAMES[1], interrupt), jobs=1)
    assert not multiprocessing.active_children()
    assert collect(first, store).is_all_of(first)
