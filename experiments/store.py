"""A results folder: one SQLite file of all that was found, and the pages beside it.

Each write is a transaction, so a kill leaves what was written before and nothing by halves. On two
cores a small state takes a few milliseconds, one of 100 MB half a second.
"""

import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm import tqdm

from experiments.engine import Progress, Run
from experiments.errors import UserError
from experiments.tuning import Trial

NAME = "results.sqlite"
SECONDS = 15.0  # between two checkpoints of a run
TABLE = """
create table if not exists kept (
  problem text, optimizer text, part text, head text, content text, arrays blob, digest text,
  primary key (problem, optimizer, part)
)"""
ARRAYS = ("params", "state")

Names = tuple[str, str]  # of a problem and an optimizer


class Kept(NamedTuple):
    """What was found in the store: numbers, and the bytes of arrays."""

    content: Any
    arrays: bytes


class Store:
    """What is finished or under way is kept here, and used again under the same settings."""

    def __init__(
        self,
        folder: Path,
        fresh: bool = False,
        checkpoint_seconds: float = SECONDS,
        side_by_side: int = 1,
    ):
        self.folder, self.fresh = folder, fresh
        self.checkpoint_seconds, self.side_by_side = checkpoint_seconds, side_by_side
        make_writable(folder)
        self._database = _opened(folder / NAME)

    def write(self, name: str, content: str | bytes) -> Path:
        """A page or a picture, whole or not at all."""
        path = self.folder / name
        draft = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(exist_ok=True)
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(draft, path)
        except OSError as error:
            raise UserError(f"Cannot write '{path}': {error.strerror}.") from error
        return path

    def begin(self, names: Iterable[Names]) -> None:
        """Where all is to be run again, removes what is kept of these optimizers on problems."""
        if self.fresh:
            with self._database as database:
                where = "delete from kept where problem = ? and optimizer = ?"
                database.executemany(where, list(names))

    def keep(self, names: Names, part: str, head: Any, content: Any, arrays: bytes = b"") -> None:
        """Replaces a part; `head` is what it will be asked for by."""
        row = (*names, part, json.dumps(head), json.dumps(content), arrays)
        with self._database as database:
            database.execute("replace into kept values (?, ?, ?, ?, ?, ?, ?)", (*row, _digest(row)))

    def find(self, names: Names, part: str, head: Any) -> Kept | None:
        """A part that was kept with the same head; None where it is not, or no longer as it was."""
        where = "select * from kept where problem = ? and optimizer = ? and part = ?"
        try:
            found = self._database.execute(where, (*names, part)).fetchone()
        except sqlite3.DatabaseError:  # such as a text that is none any more
            found = ("",) * 5 + (b"", "")
        if found is None:
            return None
        *row, digest = found
        if digest != _digest(row):
            self.drop(names, part)
            told = " · ".join((*names, part))
            _tell(f"{told} in {self.folder / NAME} is corrupt. It is run again.")
            return None
        return Kept(json.loads(row[4]), row[5]) if row[3] == json.dumps(head) else None

    def parts(self) -> list[tuple[str, str, str]]:
        """What there is, of whatever settings: problem, optimizer, part."""
        order = "select problem, optimizer, part from kept order by rowid"
        return self._database.execute(order).fetchall()

    def drop(self, names: Names, part: str) -> None:
        with self._database as database:
            where = "delete from kept where problem = ? and optimizer = ? and part = ?"
            database.execute(where, (*names, part))

    def checkpoint(self, names: Names, run: str, settings: Mapping[str, Any]) -> "Checkpoint":
        """Where a run that is under way is kept: that of a seed, or the trial of a tuning."""
        return Checkpoint(self, names, f"{run} under way", settings)

    def load_run(
        self, names: Names, seed: int, settings: Mapping[str, Any], like: Any = None
    ) -> Run | None:
        """A finished run; with its parameters at the end where others `like` them are given."""
        found = self.find(names, f"seed-{seed}", settings)
        if found is None:
            return None
        columns = {name: np.array(column) for name, column in found.content.pop("columns").items()}
        end = None if like is None else _filled(like, found.arrays)
        return Run(columns=columns, **found.content, end=end)

    def save_run(self, run: Run, settings: Mapping[str, Any]) -> None:
        numbers = {name: value for name, value in vars(run).items() if name != "end"}
        numbers["columns"] = {name: column.tolist() for name, column in run.columns.items()}
        names = run.problem, run.optimizer
        self.keep(names, f"seed-{run.seed}", settings, numbers, _bytes(run.end))

    def load_trials(self, names: Names, settings: Mapping[str, Any]) -> list[Trial]:
        """The trials of a tuning that ended, in their order; of a finished one all."""
        found = self.find(names, "tuning", settings)
        return [Trial(**trial) for trial in found.content] if found else []

    def save_trials(
        self, names: Names, trials: Sequence[Trial], settings: Mapping[str, Any]
    ) -> None:
        self.keep(names, "tuning", settings, [asdict(trial) for trial in trials])

    def save_table(self, name: str, frame: pd.DataFrame) -> None:
        """A table in long form, in place of an earlier one; a value is a number or a word."""
        with self._database as database:
            # A column of that type takes each as it is; a text would round the numbers.
            kinds: Any = {"value": "blob"}
            frame.to_sql(name, database, index=False, if_exists="replace", dtype=kinds)


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """A table that a store in this folder holds."""
    database = sqlite3.connect(f"{(folder / NAME).resolve().as_uri()}?mode=ro", uri=True)
    try:
        return pd.read_sql(f"select * from {name}", database)
    finally:
        database.close()


class Checkpoint:
    """Keeps one run while it is under way, for the same settings and structure only."""

    def __init__(self, store: Store, names: Names, part: str, settings: Mapping[str, Any]):
        self.store, self.names, self.part, self.settings = store, names, part, settings
        self._saved, self._head = time.monotonic(), {}

    def resume(self, start: Progress, arguments: Mapping[str, Any]) -> Progress:
        """Where the run with these arguments had got to, or `start`."""
        start.side_by_side = self.store.side_by_side
        self._head = {"settings": self.settings, "arguments": arguments}
        self._head |= {"structure": _structure(start)}
        self._saved = time.monotonic()
        found = self.store.find(self.names, self.part, self._head)
        if found is None:
            return start
        params, state = _filled((start.params, start.state), found.arrays)
        progress = Progress(params, state, **found.content)
        progress.side_by_side = max(progress.side_by_side, self.store.side_by_side)
        return progress

    def offer(self, progress: Progress) -> None:
        """Writes the run down, if that was last done long enough ago."""
        if time.monotonic() - self._saved >= self.store.checkpoint_seconds:
            self.save(progress)
            self._saved = time.monotonic()

    def save(self, progress: Progress) -> None:
        """Writes the run down, whatever the time."""
        numbers = {name: value for name, value in vars(progress).items() if name not in ARRAYS}
        self.store.keep(self.names, self.part, self._head, numbers, _bytes(_arrays(progress)))

    def discard(self) -> None:
        """The run is over, and kept elsewhere."""
        self.store.drop(self.names, self.part)


def make_writable(*folders: Path) -> None:
    """Makes the folders, or says in a sentence why nothing can be written there."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.write_text("")
            probe.unlink(missing_ok=True)  # another process may probe, too
        except OSError as error:
            raise UserError(f"Cannot write results to '{folder}': {error.strerror}.") from error


def _opened(path: Path) -> sqlite3.Connection:
    """The database; what is none any more is set aside, and begun anew."""
    try:
        database = sqlite3.connect(path, timeout=60)
        (state,) = database.execute("pragma quick_check").fetchone()
        database.execute(TABLE)
    except sqlite3.OperationalError as error:
        raise UserError(f"Cannot use '{path}': {error}.") from error
    except sqlite3.DatabaseError as error:
        state = str(error)
    if state == "ok":
        return database
    database.close()
    aside = path.with_name(path.name + ".corrupt")
    os.replace(path, aside)
    _tell(f"{path} is corrupt: {state}. It is set aside as {aside.name}, and all is run again.")
    return _opened(path)


def _tell(words: str) -> None:
    tqdm.write(words, file=sys.stderr)


def _digest(row: Iterable[str | bytes]) -> str:
    """SQLite notices a page that it cannot read, and no flipped bit in a value."""
    digest = hashlib.sha256()
    for cell in row:
        digest.update(cell.encode() if isinstance(cell, str) else cell)
        digest.update(b"\0")
    return digest.hexdigest()


def _arrays(progress: Progress) -> Any:
    return progress.params, progress.state


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _bytes(tree: Any) -> bytes:
    return b"".join(_raw(leaf).tobytes() for leaf in jax.tree.leaves(tree))


def _filled(tree: Any, content: bytes) -> Any:
    """A tree like this one, with these numbers in it."""
    place = 0

    def fill(leaf: Any) -> jax.Array:
        nonlocal place
        like = _raw(leaf)
        data = np.frombuffer(content, like.dtype, like.size, place).reshape(like.shape)
        place += like.nbytes
        array = jnp.asarray(data)
        if _is_key(leaf):
            return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
        return array

    return jax.tree.map(fill, tree)


def _structure(progress: Progress) -> list[str]:
    """A line for each array: its place, type and shape."""
    leaves, _ = jax.tree.flatten_with_path(_arrays(progress))
    return [f"{jax.tree_util.keystr(path)}: {jax.typeof(leaf)}" for path, leaf in leaves]
