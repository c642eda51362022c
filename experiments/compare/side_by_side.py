"""Units side by side, in processes of their own that share the results folder and nothing else.

Not an executor: a killed process would break a whole pool of them, and take the name of what it was
at with it. Here every worker has a pipe of its own, which ends when the worker does.
"""

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from experiments.bar import Bar
from experiments.compare.plan import Plan
from experiments.optimizers import OPTIMIZERS
from experiments.problems import PROBLEMS
from experiments.store import Store
from experiments.unit import Programs, Unit, work

REFRESH = 1.0  # seconds after which the bar's clock goes on, whatever is heard


class Terms(NamedTuple):
    """What a worker is told once; problems and optimizers go by name, being made of functions."""

    folder: Path
    checkpoint_seconds: float
    side_by_side: int
    seeds: int
    steps: int | None


class Told(NamedTuple):
    """What a worker tells: a call of the bar's, or how its unit ended."""

    method: str
    argument: Any


def side_by_side(
    units: Sequence[Unit], plan: Plan, store: Store, bar: Bar, jobs: int
) -> dict[str, str]:
    """Runs units, `jobs` of them at a time; says of each that failed why.

    An interruption ends the workers. What they had finished is in the folder, and so are the
    checkpoints of what they were at.
    """
    jobs = min(jobs, len(units))
    terms = Terms(store.folder, store.checkpoint_seconds, jobs, plan.seeds, plan.steps)
    crew = _Crew(terms, collections.deque(units), bar)
    try:
        for _ in range(jobs):
            crew.hire()
        while crew.workers:
            for pipe in wait(list(crew.workers), REFRESH):
                crew.hear(pipe)
            bar.refresh()
    finally:
        crew.dismiss()
    return crew.failed


@dataclass
class _Worker:
    process: BaseProcess
    unit: Unit


@dataclass
class _Crew:
    """The workers by their pipes, and the units that wait for one."""

    terms: Terms
    waiting: collections.deque[Unit]
    bar: Bar
    workers: dict[Any, _Worker] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def hire(self) -> None:
        """One more worker, for the next unit, while there is one."""
        if not self.waiting:
            return
        context = multiprocessing.get_context("spawn")  # JAX has threads, which no fork survives
        ours, theirs = context.Pipe()
        process = context.Process(target=_begin, args=(theirs, self.terms), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        theirs.close()  # or its end would never be seen
        self.workers[ours] = _Worker(process, self.waiting.popleft())
        self._tell(ours, self.workers[ours].unit.names)

    def _tell(self, pipe: Connection, names: tuple[str, str] | None) -> None:
        with contextlib.suppress(OSError):  # a worker that died is heard of when its pipe ends
            pipe.send(names)

    def hear(self, pipe: Any) -> None:
        try:
            told: Told = pipe.recv()
        except (EOFError, OSError):
            self._lost(pipe)
            return
        if told.method != "ended":
            getattr(self.bar, told.method)(told.argument)
            return
        worker = self.workers[pipe]
        if told.argument:
            self.failed[worker.unit.title] = told.argument
        if self.waiting:
            worker.unit = self.waiting.popleft()
            self._tell(pipe, worker.unit.names)
        else:
            del self.workers[pipe]
            self._tell(pipe, None)
            worker.process.join()

    def _lost(self, pipe: Any) -> None:
        worker = self.workers.pop(pipe)
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        self.failed[worker.unit.title] = f"its process ended {how}"
        self.hire()

    def dismiss(self) -> None:
        for worker in self.workers.values():
            worker.process.terminate()
        for worker in self.workers.values():
            worker.process.join()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes begun within ignore Ctrl-C, which reaches all: it is the parent that ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(pipe: Connection, terms: Terms) -> None:
    """The worker's process: it ends with its parent, even with one that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    _serve(pipe, terms)


def _serve(pipe: Connection, terms: Terms) -> None:
    """A worker: runs the units that it is told, until told None or nobody is there to tell."""
    store = Store(
        terms.folder,
        checkpoint_seconds=terms.checkpoint_seconds,
        side_by_side=terms.side_by_side,
    )
    bar, programs = _Pipe(pipe), None
    with contextlib.suppress(EOFError, OSError):
        while names := pipe.recv():
            problem, optimizer = PROBLEMS[names[0]], OPTIMIZERS[names[1]]
            (unit,) = Plan([problem], [optimizer], terms.seeds, terms.steps).units
            if programs is None or programs.problem is not problem:
                if programs is not None:
                    programs.__exit__()
                programs = Programs(problem, bar)  # one problem's data at a time
            try:
                work(unit, store, programs)
                failure = None
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
            pipe.send(Told("ended", failure))


@dataclass
class _Pipe:
    """Stands in for the bar of another process."""

    pipe: Connection

    def set_description_str(self, desc: str) -> None:
        self.pipe.send(Told("set_description_str", desc))

    def update(self, n: int = 1) -> None:
        self.pipe.send(Told("update", n))

    def skip(self, parts: int) -> None:
        self.pipe.send(Told("skip", parts))
