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
from multiprocessing.connection import Connection, wait
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
    waiting, failed = collections.deque(units), {}
    workers: dict[Any, tuple[Any, Unit]] = {}  # by their pipes

    def order(pipe: Any, process: Any) -> None:
        """The next unit, or the end."""
        unit = waiting.popleft() if waiting else None
        with contextlib.suppress(OSError):  # a worker that died is heard of when its pipe ends
            pipe.send(unit and unit.names)
        if unit is not None:
            workers[pipe] = process, unit
        else:
            del workers[pipe]
            process.join()

    def hire() -> None:
        if waiting:
            context = multiprocessing.get_context("spawn")  # JAX has threads: no fork survives
            ours, theirs = context.Pipe()
            process = context.Process(target=_begin, args=(theirs, terms), daemon=True)
            with _deaf_to_interrupts():
                process.start()
            theirs.close()  # or its end would never be seen
            order(ours, process)

    def hear(pipe: Any) -> None:
        process, unit = workers[pipe]
        try:
            told: Told = pipe.recv()
        except (EOFError, OSError):
            del workers[pipe]
            process.join()
            code = process.exitcode or 0
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            failed[unit.title] = f"its process ended {how}"
            hire()
            return
        if told.method != "ended":
            getattr(bar, told.method)(told.argument)
            return
        if told.argument:
            failed[unit.title] = told.argument
        order(pipe, process)

    try:
        for _ in range(jobs):
            hire()
        while workers:
            for pipe in wait(list(workers), REFRESH):
                hear(pipe)
            bar.refresh()
    finally:
        for process, _ in workers.values():
            process.terminate()
        for process, _ in workers.values():
            process.join()
    return failed


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
    folder, seconds, jobs, seeds, steps = terms
    store = Store(folder, checkpoint_seconds=seconds, side_by_side=jobs)
    programs: Programs | None = None
    with contextlib.suppress(EOFError, OSError), contextlib.ExitStack() as stack:
        while names := pipe.recv():
            problem, optimizer = PROBLEMS[names[0]], OPTIMIZERS[names[1]]
            (unit,) = Plan([problem], [optimizer], seeds, steps).units
            if programs is None or programs.problem is not problem:
                stack.close()  # one problem's data at a time
                programs = stack.enter_context(Programs(problem, _Pipe(pipe)))
            try:
                work(unit, store, programs)
                failure = None
            except Exception as error:
                failure = f"{type(error).__name__}: {error}"
            pipe.send(Told("ended", failure))


class _Pipe(NamedTuple):
    """Stands in for the bar of another process."""

    pipe: Connection

    def set_description_str(self, desc: str) -> None:
        self.pipe.send(Told("set_description_str", desc))

    def update(self, n: int = 1) -> None:
        self.pipe.send(Told("update", n))

    def skip(self, parts: int) -> None:
        self.pipe.send(Told("skip", parts))
