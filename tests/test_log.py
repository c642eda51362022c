"""Logs: every row is in the file at once, a log goes on after a kill, and bad values get a word."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

import secondorder as so

FILES = {"csv": so.log.csv, "jsonl": so.log.jsonl}


def read(path):
    """The rows of a log, as pandas reads them."""
    return (
        pd.read_csv(path)
        if path.suffix == ".csv"
        else pd.read_json(path, lines=True, precise_float=True)
    )


@pytest.mark.parametrize("kind", FILES)
def test_a_row_is_in_the_file_before_the_next_one_and_keeps_its_digits(kind, tmp_path):
    path = tmp_path / "new" / f"run.{kind}"
    with FILES[kind](path) as log:
        log(jnp.int32(1), loss=jnp.float32(0.1), small=jnp.bfloat16(0.5), ok=jnp.asarray(True))
        (row,) = read(path).to_dict("records")
        assert row == {"step": 1, "loss": 0.1, "small": 0.5, "ok": True}
        log(np.int64(2), loss=1 / 3, small=np.nan, ok=False)
    assert read(path).loss[1] == 1 / 3
    assert np.isnan(read(path).small[1])


@pytest.mark.parametrize("kind", FILES)
def test_a_log_goes_on_where_an_earlier_one_ended_and_drops_a_torn_row(kind, tmp_path):
    path = tmp_path / f"run.{kind}"
    with FILES[kind](path) as log:
        log(0, a=1.0, word='so, "quoted"')
    with path.open("a") as file:
        file.write("1,0.5" if kind == "csv" else '{"step": 1, "a": 0.')
    with FILES[kind](path) as log:
        log(1, a=2.0, word=so.Status.CONVERGED)
    with FILES[kind](path) as log:
        log(2, a=3.0, word="é")
    found = read(path)
    assert found.step.tolist() == [0, 1, 2] and found.a.tolist() == [1.0, 2.0, 3.0]
    assert found.word.tolist() == ['so, "quoted"', "CONVERGED", "é"]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("torn", ["", "\n", "step,a", "step,a\n0,1", "step,a\n0,1\n", "x" * 9999])
def test_a_log_opens_whatever_a_kill_leaves_and_nothing_else(kind, torn, tmp_path):
    path = tmp_path / "run"
    path.write_text(torn)
    ours = torn == "" or (kind == "csv" and torn.startswith("step"))
    if not ours:
        with pytest.raises(ValueError, match="its first line is not that of such a log"):
            FILES[kind](path)
        assert path.read_text() == torn
        return
    with FILES[kind](path) as log:
        log(1, a=2)
    text = path.read_text()
    assert text.endswith("1,2\n" if kind == "csv" else '{"step": 1, "a": 2}\n')
    assert text.count("\n") == text.count("step") + text.count("0,1\n") + (kind == "csv")


def test_a_new_name_is_a_new_column_and_a_missing_one_an_empty_cell(tmp_path):
    path = tmp_path / "run.csv"
    with so.log.csv(path) as log:
        log(0, a="x,y")
        log(1, a="z", b=2.0)
        log(2, c=3)
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["step", "a", "b", "c"]
    assert rows[1:] == [["0", "x,y", "", ""], ["1", "z", "2.0", ""], ["2", "", "", "3"]]
    assert [file.name for file in tmp_path.iterdir()] == ["run.csv"]


KILLED = """
import os, signal, sys
import secondorder as so
log = getattr(so.log, sys.argv[1])(sys.argv[2])
for step in range(5):
    log(step, loss=0.5 * step)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_a_kill_loses_no_row(kind, tmp_path):
    path = tmp_path / f"run.{kind}"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, kind, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(so.__file__).parents[1])},
    )
    assert ended.returncode == -signal.SIGKILL
    assert read(path).loss.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("kind", FILES)
def test_bad_values_get_a_sentence_and_leave_the_file_as_it_was(kind, tmp_path):
    path = tmp_path / "run"
    with FILES[kind](path) as log:
        log(0, a=1)
        before = path.read_text()
        with pytest.raises(TypeError, match="a traced value as a. Return it from the jitted"):
            jax.jit(lambda x: log(0, a=x))(1.0)
        with pytest.raises(TypeError, match="log got a=object, which is no number"):
            log(1, a=object())
        with pytest.raises(TypeError, match="log got a=complex"):
            log(1, a=1j)
        with pytest.raises(ValueError, match="named step beside the step"):
            log(1, **{"step": 2})
        if kind == "csv":
            with pytest.raises(ValueError, match=r"a of the shape \(3,\). Pass single numbers"):
                log(1, a=jnp.zeros(3))
        assert path.read_text() == before
    log.close()
    with pytest.raises(ValueError, match="is closed"):
        log(1, a=1)


def test_jsonl_takes_arrays_and_numbers_that_are_not_finite(tmp_path):
    with so.log.jsonl(tmp_path / "run") as log:
        log(0, a=jnp.array([[0.1, jnp.inf]]), b=-np.inf, c=None)
    found = json.loads((tmp_path / "run").read_text())
    assert found == {"step": 0, "a": [[0.1, np.inf]], "b": -np.inf, "c": None}


@pytest.mark.parametrize("kind", FILES)
def test_a_loop_logs_its_diagnostics_as_they_are(kind, tmp_path):
    opt, fn = so.newton_cg(), lambda p: jnp.sum(jnp.cosh(p))
    params = jnp.ones(2)
    state = opt.init(params)

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = opt.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return optax.apply_updates(params, updates), state, value

    with FILES[kind](tmp_path / f"run.{kind}") as log:
        for i in range(3):
            params, state, value = step(params, state)
            log(i, loss=value, **so.diagnostics(state))
    found = read(tmp_path / f"run.{kind}")
    assert found.steps.tolist() == [1, 2, 3] and found.accepted.tolist() == [True] * 3
    assert set(found.columns) == {"step", "loss", *so.diagnostics(state)}


def test_a_callback_of_a_solve_logs_each_point(tmp_path):
    with so.log.csv(tmp_path / "run.csv") as log:
        note = lambda at: log(at.steps, value=at.value, gradient=at.grad_norm, scale=at.scale)
        solution = so.minimize(lambda p: jnp.sum(p**4), jnp.ones(2), callback=note)
    found = read(tmp_path / "run.csv")
    assert found.step.tolist() == list(range(int(solution.steps) + 1))
    assert np.float32(found.value.iloc[-1]) == np.asarray(solution.value)


def events_of(folder):
    """The events in the files of a folder, in order of their names."""
    event = pytest.importorskip("tensorboardX.proto.event_pb2").Event
    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            found.append(event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return [event for event in found if event.summary.value]


def test_events_are_in_the_file_before_the_next_row(tmp_path):
    pytest.importorskip("tensorboardX")
    folder = tmp_path / "new" / "run"
    for resumed in (0, 1):  # within a second
        with so.log.tensorboard(folder) as log:
            for step in (0, 1):
                log(2 * resumed + step, loss=jnp.float32(0.5), gain=np.inf, ok=True, none=None)
                assert len(events_of(folder)) == 2 * resumed + step + 1
    events = events_of(folder)
    assert [event.step for event in events] == [0, 1, 2, 3]
    values = {value.tag: value.simple_value for value in events[-1].summary.value}
    assert values == {"loss": 0.5, "gain": np.inf, "ok": 1.0}


def test_events_hold_texts_and_refuse_arrays(tmp_path):
    pytest.importorskip("tensorboardX")
    with so.log.tensorboard(tmp_path) as log:
        log(0, word="é", loss=1.0)
        with pytest.raises(ValueError, match="Pass single numbers"):
            log(1, loss=jnp.ones(2))
    word, loss = events_of(tmp_path)[0].summary.value
    assert word.tensor.string_val[0].decode() == "é" and loss.simple_value == 1.0
    with pytest.raises(ValueError, match="is closed"):
        log(1, loss=1.0)


def test_without_tensorboardx_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(ImportError, match="is not installed: pip install 'secondorder.watch.'"):
        so.log.tensorboard(tmp_path)
