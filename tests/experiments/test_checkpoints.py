"""A run that was killed goes on, and its records are those of a run that never was."""

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from lines import LINE, plain, sgd

import secondorder as so
from experiments.bar import Bar
from experiments.benchmarks.contestants import contestants
from experiments.compare.plan import Plan
from experiments.compare.run import Comparison
from experiments.engine import Progress, Status, prepare, run, set_up
from experiments.optimizers import OPTIMIZERS
from experiments.problem import minibatches
from experiments.problems import PROBLEMS, digits
from experiments.store import NAME, Checkpoint, Store

SETTINGS = {"source": "this"}
ARGUMENTS = {"seed": 0}
NAMES = ("p", "o")
STEP = Progress.step
# Steps of the run that is killed.
LAST = 4


class Killed(Exception):
    """The end of a process, as far as a test can have one of its own."""


class Sparse(Checkpoint):
    """Writes down every so many steps, since tests know no seconds."""

    def __init__(self, folder: Path, every: int = 1):
        super().__init__(Store(folder, checkpoint_seconds=0.0), NAMES, "run", SETTINGS)
        self.every = every

    def offer(self, progress: Progress) -> None:
        if progress.count % self.every == 0:
            super().offer(progress)


def killed_at(steps):
    """Dies as soon as each of these steps was taken, once; and remembers all that were taken."""
    remaining, taken = set(steps), []

    def on_step(step: int) -> None:
        taken.append(step)
        if step in remaining:
            remaining.remove(step)
            raise Killed

    return on_step, taken


def survive(prepared, folder: Path, steps: int, kills, saved_every: int, **options):
    """Runs again after every kill, as a person would; returns the record and the steps taken."""
    on_step, taken = killed_at(kills)

    def attempt():
        keeper = Sparse(folder, saved_every)
        return run(prepared, 3, steps, on_step=on_step, keeper=keeper, **options)

    for _ in kills:
        with pytest.raises(Killed):
            attempt()
    return attempt(), taken


def assert_same_records(resumed, whole):
    assert list(resumed.columns) == list(whole.columns)
    for name in whole.columns.keys() - {"seconds"}:
        np.testing.assert_array_equal(resumed.columns[name], whole.columns[name], err_msg=name)
        assert resumed.columns[name].dtype == whole.columns[name].dtype
    assert resumed.status == whole.status
    assert resumed.hyperparameters == whole.hyperparameters


def bent_objective(batch):
    return so.sum_of_squares(lambda p: jnp.tanh(p[0] * batch["x"]) + p[1] - batch["y"])


BENT = dataclasses.replace(LINE, objective=bent_objective, grad_norm_target=0.0)
SOPHIA = dataclasses.replace(plain(lambda: so.sophia(0.05)), diagnose=so.diagnostics)


@pytest.mark.parametrize(
    ("optimizer", "batch"),
    [
        (SOPHIA, 4),  # a key in its state
        (OPTIMIZERS["lbfgs"], None),  # hands a gradient on
        (OPTIMIZERS["newton-cg"], 4),  # counts
    ],
    ids=["sophia-minibatches", "lbfgs-full-batch", "newton-cg-minibatches"],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(optimizer, batch, tmp_path):
    problem = dataclasses.replace(BENT, stream=minibatches(batch)) if batch else BENT
    prepared = prepare(set_up(problem), optimizer)
    whole = run(prepared, 3, 11)
    resumed, taken = survive(prepared, tmp_path / "run", 11, kills=(1, 5, 9), saved_every=2)
    assert taken == [1, *range(1, 6), *range(5, 10), *range(9, 12)]
    assert_same_records(resumed, whole)
    assert (np.diff(resumed.columns["seconds"]) > 0).all()


def test_a_run_that_no_longer_moves_is_still_counted_so_after_a_kill(tmp_path):
    prepared = prepare(set_up(LINE), sgd(0.0))
    resumed, _ = survive(prepared, tmp_path / "run", 50, kills=(11, 25), saved_every=10)
    assert resumed.status == Status.STALLED
    assert_same_records(resumed, run(prepared, 3, 50))


def test_a_run_that_is_looked_at_now_and_then_is_resumed_between_two_looks(tmp_path):
    prepared = prepare(set_up(LINE), sgd(0.01))
    resumed, taken = survive(prepared, tmp_path / "run", 20, kills=(9,), saved_every=7, every=5)
    assert taken == [*range(1, 10), *range(8, 21)]
    assert_same_records(resumed, run(prepared, 3, 20, every=5))


@pytest.mark.slow
def test_kfac_on_a_network_is_resumed_to_the_last_bit(tmp_path):
    problem = digits.CLASSIFIER
    prepared = prepare(set_up(problem), contestants(problem)["kfac"])
    damping = {"damping": 0.1}
    resumed, _ = survive(
        prepared, tmp_path / "run", 9, kills=(4, 7), saved_every=3, hyperparameters=damping
    )
    assert_same_records(resumed, run(prepared, 3, 9, damping))


def progress(count: int = 3, size: int = 4) -> Progress:
    """Every kind of leaf that a state may have, and numbers that are hard on a text."""
    params = {"weights": jnp.arange(float(size)), "none": None}
    odd = jnp.asarray([jnp.nan, -0.0, 1e-42, jnp.inf], jnp.float32)
    state = (
        optax.ScaleByAdamState(jnp.asarray(7, jnp.int32), odd, (odd, ())),
        jax.random.split(jax.random.key(count), 3),
        jnp.asarray([1 / 3], ml_dtypes.bfloat16),
        jnp.asarray(True),
    )
    rows = [{"step": 0, "value": 0.1 + 0.2, "norm": float("nan")}, {"step": 1, "gain": 1e-310}]
    return Progress(params, state, 2 / 3, count, 0.125, {"gain": float("inf")}, 2, rows)


def bits(tree):
    def of(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()

    return jax.tree.structure(tree), [of(leaf) for leaf in jax.tree.leaves(tree)]


def saved(folder: Path) -> Checkpoint:
    """A checkpoint after three steps."""
    checkpoint = Checkpoint(Store(folder), NAMES, "run", SETTINGS)
    checkpoint.resume(progress(), ARGUMENTS)
    checkpoint.save(progress())
    return checkpoint


def resumes(folder: Path, start: Progress | None = None, settings=SETTINGS, arguments=ARGUMENTS):
    """What another process goes on from, or None where it begins."""
    start = progress(count=0) if start is None else start
    found = Checkpoint(Store(folder), NAMES, "run", settings).resume(start, arguments)
    return None if found is start else found


def test_a_checkpoint_gives_back_every_bit(tmp_path):
    with jax.enable_x64(True):
        saved(tmp_path / "run")
        found = resumes(tmp_path / "run")
        assert found is not None
        assert bits((found.params, found.state)) == bits((progress().params, progress().state))
    numbers = lambda of: repr({k: v for k, v in vars(of).items() if k not in ("params", "state")})
    assert numbers(found) == numbers(progress())


@pytest.mark.parametrize(
    "other",
    [
        lambda: {"settings": {"source": "another"}},
        lambda: {"arguments": {"seed": 1}},
        lambda: {"start": progress(size=5)},
        lambda: {"start": dataclasses.replace(progress(), params={"renamed": jnp.arange(4.0)})},
    ],
    ids=["source", "seed", "shape", "structure"],
)
def test_what_belongs_to_another_run_is_not_gone_on_with(other, tmp_path, capsys):
    saved(tmp_path / "run")
    assert resumes(tmp_path / "run", **other()) is None
    assert resumes(tmp_path / "run") is not None
    assert not capsys.readouterr().err


@pytest.mark.parametrize("column", ["content", "arrays"])
def test_a_damaged_checkpoint_is_named_and_the_run_begun_again(column, tmp_path, capsys):
    store = saved(tmp_path).store
    with sqlite3.connect(tmp_path / NAME) as database:
        (content,) = database.execute(f"select {column} from kept").fetchone()
        half = len(content) // 2
        other = bytes([content[half] ^ 1]) if column == "arrays" else "7"
        database.execute(
            f"update kept set {column} = ?", (content[:half] + other + content[half + 1 :],)
        )
    database.close()
    assert resumes(tmp_path) is None
    assert f"p · o · run in {tmp_path / NAME} is corrupt" in capsys.readouterr().err
    assert resumes(tmp_path) is None
    assert not capsys.readouterr().err
    assert not store.parts()


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoint = saved(tmp_path)
    code = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("pragma cache_size = 1")  # so that half of it is in the file already
database.execute("update kept set content = 'half', arrays = zeroblob(1000000)")
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / NAME)])
    assert killed.returncode == -signal.SIGKILL
    found = resumes(tmp_path)
    assert found is not None
    assert found.count == 3
    checkpoint.save(progress(count=4))
    assert checkpoint.store.parts() == [(*NAMES, "run")]
    checkpoint.discard()
    assert not checkpoint.store.parts()


def test_a_run_that_shared_the_machine_for_a_while_says_so_to_its_end(tmp_path):
    shared = Checkpoint(Store(tmp_path / "run", side_by_side=2), NAMES, "run", SETTINGS)
    shared.save(shared.resume(progress(), ARGUMENTS))
    found = resumes(tmp_path / "run")
    assert found is not None
    assert found.side_by_side == 2


def compare(folder: Path) -> Comparison:
    """A comparison of one run, written down after every step."""
    plan = Plan([PROBLEMS["tanh-network"]], [OPTIMIZERS["newton-cg"]], seeds=1, steps=25)
    store = Store(folder, checkpoint_seconds=0.0)
    comparison = Comparison(plan, store, Bar(disable=True))
    comparison.run()
    return comparison


@pytest.mark.slow
def test_a_process_that_is_killed_outright_is_gone_on_with(tmp_path):
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, str(tmp_path / "killed")]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}) as process:
        try:
            while count_of(tmp_path / "killed" / NAME) < LAST:
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.01)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [part for _, _, part in Store(tmp_path / "killed").parts()] == ["seed-0 under way"]

    counts = []

    def counted(self, *rest):
        counts.append(self.count)
        STEP(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "step", counted)
        resumed = compare(tmp_path / "killed")
    assert min(counts) == LAST
    whole = compare(tmp_path / "whole")
    assert_same_records(resumed.results[0].runs[0], whole.results[0].runs[0])
    assert [part for _, _, part in Store(tmp_path / "killed").parts()] == ["seed-0"]


def count_of(database: Path) -> int:
    """Steps of the run that is under way."""
    if not database.exists():
        return 0
    connection = sqlite3.connect(database, timeout=60)
    try:
        found = connection.execute("select content from kept").fetchone()
    except sqlite3.OperationalError:  # the table is still to be made
        found = None
    connection.close()
    return json.loads(found[0])["count"] if found else 0


def stand_still(self, *rest):
    """Steps as ever up to `LAST`, and then waits: no machine is too slow to kill a run in time."""
    if self.count == LAST:
        time.sleep(3600)
    STEP(self, *rest)


if __name__ == "__main__":
    Progress.step = stand_still
    compare(Path(sys.argv[1]))
