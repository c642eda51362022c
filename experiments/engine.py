"""Runs one problem with one optimizer from one seed, and records every step.

The step is compiled once per problem and optimizer, ahead of time; hyperparameters are arguments of
it, so tuning and all seeds share that one compilation. The clock runs during the step alone.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from threadpoolctl import threadpool_limits

import secondorder as so
from experiments.cost import GRADIENT, gradient_only
from experiments.optimizer import Optimizer
from experiments.problem import Data, Problem

STALLED_AFTER = 30  # steps in a row that leave value and gradient unchanged to the last bit
LEAP = 10  # steps in one program, where a search for a hyperparameter looks no more often
DIVERGED_ABOVE = 1e8  # times the value at the start


class Status(StrEnum):
    """Why a run ended."""

    CONVERGED = "converged"  # to the problem's target
    STEP_LIMIT = "step limit"  # or that of seconds
    STALLED = "stalled"  # no step changes anything any more
    DIVERGED = "diverged"  # not finite, or far above the start
    ELSEWHERE = "other stationary point"  # the gradient vanished, yet far above the optimum


# Half of the time in which XLA compiles for a CPU, and programs as fast; JAX 0.10 alone has the
# second choice.
COMPILER: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}
if jax.__version_info__ < (0, 11):
    COMPILER["xla_cpu_use_fusion_emitters"] = False


@dataclass
class Run:
    """One finished run: a column of numbers for each recorded quantity, one entry per step."""

    problem: str
    optimizer: str
    seed: int
    status: str
    columns: dict[str, np.ndarray]
    hyperparameters: dict[str, float] = field(default_factory=dict)
    compile_seconds: float = 0.0
    side_by_side: int = 1
    """How many runs shared the machine, which is what its seconds are worth."""
    end: Any = field(default=None, repr=False)
    """The parameters after the last step; a store that is asked for a run alone leaves them out."""

    @property
    def failed(self) -> bool:
        return self.status in (Status.DIVERGED, Status.ELSEWHERE)


@dataclass(frozen=True)
class Setting:
    """One problem with its data on the device and its measurement compiled."""

    problem: Problem
    data: Data
    everything: Any
    """All training data as one batch, or what the problem looks at instead."""
    measure: Callable[[Any], dict[str, float]]
    """Of parameters: value, gradient norm and the problem's own, over all training data."""


@dataclass(frozen=True)
class Prepared:
    """One problem with one optimizer, its step compiled."""

    setting: Setting
    optimizer: Optimizer
    start: Callable[..., Any]
    step: Callable[..., tuple[Any, Any, Mapping[str, jax.Array]]]
    compile_seconds: float
    leap: Callable[..., tuple[Any, Any]] | None = None
    """`LEAP` steps on one batch, of an optimizer that is tuned on it."""

    @property
    def problem(self) -> Problem:
        return self.setting.problem


@contextlib.contextmanager
def numerics(problem: Problem) -> Iterator[None]:
    """float64 for this problem only, the process-wide switch as it is; LAPACK on one thread.

    LAPACK's threads wait for one another by spinning: on a machine that does anything else at the
    same time, a factorisation on two of them was seen to take twenty times as long as on one.
    """
    with jax.enable_x64(problem.float64), threadpool_limits(1, "blas"):
        yield


def set_up(problem: Problem) -> Setting:
    """Loads the data of a problem and compiles what is measured while the clock stands still."""
    with numerics(problem):
        data = {name: jnp.asarray(array) for name, array in problem.load().items()}
        everything = problem.looks_at(data)
        params = problem.init(jax.random.key(0), data)

        def measure(params, batch, data):
            value, grad = jax.value_and_grad(problem.objective(batch))(params)
            found = {"value": value, "grad_norm": optax.tree.norm(grad)}
            found |= problem.metrics(params, data)
            names.extend(found)
            return jnp.stack([jnp.asarray(number, float) for number in found.values()])

        names: list[str] = []
        compiled = jax.jit(measure).lower(params, everything, data).compile(COMPILER)

    def measured(params: Any) -> dict[str, float]:
        # One array, since each that leaves the device takes as long as a small gradient.
        return dict(
            zip(names, np.asarray(compiled(params, everything, data)).tolist(), strict=True)
        )

    return Setting(problem, data, everything, measured)


def prepare(setting: Setting, optimizer: Optimizer) -> Prepared:
    """Compiles the train step of one optimizer on one problem."""
    problem = setting.problem

    def start(params, hyperparameters, batch):
        return optimizer.built(problem.objective(batch), hyperparameters).init(params)

    def step(params, state, batch, hyperparameters):
        objective = problem.objective(batch)
        if optimizer.reuses_gradient and problem.is_full_batch:
            value, grad = optax.value_and_grad_from_state(objective)(params, state=state)
        else:
            value, grad = jax.value_and_grad(objective)(params)
        if optimizer.curvature_part > 1:
            part = jax.tree.map(lambda x: x[:: optimizer.curvature_part], batch)
            objective = so.with_curvature(objective, problem.objective(part))
        transformation = optimizer.built(objective, hyperparameters)
        updates, state = transformation.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return optax.apply_updates(params, updates), state, dict(optimizer.diagnose(state))

    stepped = jax.jit(step)  # traced once for both

    def leap(params, state, batch, hyperparameters):
        one = lambda carry, _: (stepped(carry[0], carry[1], batch, hyperparameters)[:2], None)
        return jax.lax.scan(one, (params, state), length=LEAP)[0]

    with numerics(problem):
        params = problem.init(jax.random.key(0), setting.data)
        hyperparameters = {name: jnp.asarray(1.0, float) for name in optimizer.search}
        batch = next(batches(setting, 0))
        compiled_start = jax.jit(start).lower(params, hyperparameters, batch).compile(COMPILER)
        begin = lambda params, hyperparameters: compiled_start(params, hyperparameters, batch)
        state = begin(params, hyperparameters)
        clock = time.perf_counter()
        lowered = stepped.lower(params, state, batch, hyperparameters)
        compiled_step = lowered.compile(COMPILER)
        compile_seconds = time.perf_counter() - clock
        # The first call pays for pages and threads: let it be none of those that are timed.
        jax.block_until_ready(compiled_step(params, state, batch, hyperparameters))
        several = None
        light = optimizer.step_cost is gradient_only and problem.is_full_batch
        if optimizer.search and light:
            lowered = jax.jit(leap).lower(params, state, batch, hyperparameters)
            several = lowered.compile(COMPILER)
    return Prepared(setting, optimizer, begin, compiled_step, compile_seconds, several)


def batches(setting: Setting, seed: int, skipped: int = 0) -> Iterator[Any]:
    """The stream on the device; a batch that comes again is not copied again."""
    held, placed = None, None
    stream = setting.problem.stream(setting.problem.load(), seed)
    for batch in itertools.islice(stream, skipped, None):
        if batch is not held:
            held, placed = batch, jax.tree.map(jnp.asarray, batch)
        yield placed


@dataclass
class Progress:
    """A run under way: everything that its next step, its rows and its end depend on."""

    params: Any
    state: Any
    spent: float
    """Gradient-equivalents so far."""
    count: int = 0
    """Steps so far, and so the place in the stream of batches."""
    seconds: float = 0.0
    diagnostics: dict[str, float] = field(default_factory=dict)
    """Of the last step."""
    unchanged: int = 0
    """Looks in a row that saw nothing change."""
    rows: list[dict[str, float]] = field(default_factory=list)
    side_by_side: int = 1
    """The most runs that shared the machine with this one, itself included."""

    def look(self, setting: Setting) -> Status | None:
        """Writes down the point after `count` steps, and tells whether the run is over."""
        spent = self.spent if self.count else 0.0
        row = {"step": self.count, "gradient_equivalents": spent, "seconds": self.seconds}
        row |= setting.measure(self.params) | self.diagnostics
        before = self.rows[-1] if self.rows else None
        self.rows.append(row)
        value, grad_norm = row["value"], row["grad_norm"]
        limit = DIVERGED_ABOVE * max(1.0, abs(self.rows[0]["value"]))
        if not (math.isfinite(value) and math.isfinite(grad_norm)) or value > limit:
            return Status.DIVERGED
        if grad_norm <= setting.problem.grad_norm_target or setting.problem.solved(row):
            return Status.CONVERGED
        same = before is not None and (value, grad_norm) == (before["value"], before["grad_norm"])
        self.unchanged = self.unchanged + 1 if same else 0
        return Status.STALLED if self.unchanged >= STALLED_AFTER else None

    def step(self, prepared: Prepared, batch: Any, hyperparameters: Mapping[str, Any]) -> None:
        """One step of the optimizer: the only code during which the clock runs."""
        clock = time.perf_counter()
        self.params, self.state, record = jax.block_until_ready(
            prepared.step(self.params, self.state, batch, hyperparameters)
        )
        self.seconds += time.perf_counter() - clock
        self.diagnostics = {name: float(number) for name, number in record.items()}
        self.spent += prepared.optimizer.step_cost(self.diagnostics)
        if prepared.optimizer.reuses_gradient and not prepared.problem.is_full_batch:
            self.spent += GRADIENT  # the gradient at hand is of another batch
        self.count += 1

    def leap(self, prepared: Prepared, batch: Any, hyperparameters: Mapping[str, Any]) -> None:
        """`LEAP` steps at once, of an optimizer without diagnostics."""
        assert prepared.leap is not None
        clock = time.perf_counter()
        self.params, self.state = jax.block_until_ready(
            prepared.leap(self.params, self.state, batch, hyperparameters)
        )
        self.seconds += time.perf_counter() - clock
        self.spent += LEAP * prepared.optimizer.step_cost({})
        self.count += LEAP


class Keeper(Protocol):
    """Keeps a run under way outside this process; `experiments.store` has one."""

    def resume(self, start: Progress, arguments: Mapping[str, Any]) -> Progress:
        """Where a run of these arguments had got to, or `start`."""
        ...

    def offer(self, progress: Progress) -> None:
        """May write it down; the clock stands still."""
        ...


class Forgetful:
    """Keeps nothing: every run begins at its start."""

    def resume(self, start: Progress, arguments: Mapping[str, Any]) -> Progress:
        del arguments
        return start

    def offer(self, progress: Progress) -> None:
        del progress


def run(
    prepared: Prepared,
    seed: int,
    steps: int,
    hyperparameters: Mapping[str, float] | None = None,
    *,
    every: int = 1,
    on_step: Callable[[int], None] = lambda step: None,
    keeper: Keeper = Forgetful(),
) -> Run:
    """Trains from one seed until converged, stalled, diverged or out of steps.

    Row k describes the point after k steps: its value and gradient norm over all training data,
    what the k steps cost in gradient-equivalents and seconds, and the diagnostics of the step that
    led there. With `every` above one only every so many steps are looked at. From what a `keeper`
    had written down the run goes on, and its rows are those of a run that was never interrupted.
    """
    setting, problem = prepared.setting, prepared.problem
    chosen = dict(hyperparameters or {})
    arguments = {"seed": seed, "steps": steps, "hyperparameters": chosen, "every": every}
    with numerics(problem):
        numbers = {name: jnp.asarray(number, float) for name, number in chosen.items()}
        progress = keeper.resume(_beginning(prepared, seed, numbers), arguments)
        stream = batches(setting, seed, skipped=progress.count)
        most = math.inf if problem.seconds is None else problem.seconds
        while True:
            over = progress.count == steps or progress.seconds >= most
            status = progress.look(setting) if progress.count % every == 0 or over else None
            if status or over:
                break
            if prepared.leap and every == LEAP and progress.count + LEAP <= steps:
                progress.leap(prepared, next(stream), numbers)
            else:
                progress.step(prepared, next(stream), numbers)
            keeper.offer(progress)
            on_step(progress.count)
    return Run(
        problem=problem.name,
        optimizer=prepared.optimizer.name,
        seed=seed,
        status=str(status or Status.STEP_LIMIT),
        columns=_columns(progress.rows),
        hyperparameters=chosen,
        compile_seconds=prepared.compile_seconds,
        side_by_side=progress.side_by_side,
        end=progress.params,
    )


def _beginning(prepared: Prepared, seed: int, hyperparameters: Mapping[str, Any]) -> Progress:
    params = prepared.problem.init(jax.random.key(seed), prepared.setting.data)
    # A line search that hands its last gradient on still needs one to begin with.
    handed_on = prepared.optimizer.reuses_gradient and prepared.problem.is_full_batch
    state = prepared.start(params, hyperparameters)
    return Progress(params, state, spent=GRADIENT if handed_on else 0.0)


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
