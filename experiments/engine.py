"""Runs one problem with one optimizer from one seed, and records every step.

The step is compiled once per problem and optimizer, ahead of time; hyperparameters are arguments of
it, so tuning and all seeds share that one compilation. The clock runs during the step alone.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from threadpoolctl import threadpool_limits

import secondorder as so
from experiments.cost import GRADIENT
from experiments.optimizers import Optimizer
from experiments.problem import Data, Problem

STALLED_AFTER = 30  # steps in a row that leave value and gradient unchanged to the last bit
DIVERGED_ABOVE = 1e8  # times the value at the start


class Status(StrEnum):
    """Why a run ended."""

    CONVERGED = "converged"  # to the problem's target
    STEP_LIMIT = "step limit"  # or that of seconds
    STALLED = "stalled"  # no step changes anything any more
    DIVERGED = "diverged"  # not finite, or far above the start
    ELSEWHERE = "other stationary point"  # the gradient vanished, yet far above the optimum


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
    measure: Callable[..., Mapping[str, jax.Array]]


@dataclass(frozen=True)
class Prepared:
    """One problem with one optimizer, its step compiled."""

    setting: Setting
    optimizer: Optimizer
    start: Callable[..., Any]
    step: Callable[..., tuple[Any, Any, Mapping[str, jax.Array]]]
    compile_seconds: float

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
            return {
                "value": value,
                "grad_norm": optax.tree.norm(grad),
                **problem.metrics(params, data),
            }

        compiled = jax.jit(measure).lower(params, everything, data).compile()
    return Setting(problem, data, everything, compiled)


def prepare(setting: Setting, optimizer: Optimizer) -> Prepared:
    """Compiles the train step of one optimizer on one problem."""
    problem = setting.problem

    def start(params, hyperparameters):
        return optimizer.build(**hyperparameters).init(params)

    def step(params, state, batch, hyperparameters):
        objective = problem.objective(batch)
        if optimizer.reuses_gradient and problem.is_full_batch:
            value, grad = optax.value_and_grad_from_state(objective)(params, state=state)
        else:
            value, grad = jax.value_and_grad(objective)(params)
        if optimizer.curvature_part > 1:
            part = jax.tree.map(lambda x: x[:: optimizer.curvature_part], batch)
            objective = so.with_curvature(objective, problem.objective(part))
        transformation = optimizer.build(**hyperparameters)
        updates, state = transformation.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return optax.apply_updates(params, updates), state, dict(optimizer.diagnose(state))

    with numerics(problem):
        params = problem.init(jax.random.key(0), setting.data)
        hyperparameters = {name: jnp.asarray(1.0, float) for name in optimizer.search}
        batch = next(batches(setting, 0))
        compiled_start = jax.jit(start).lower(params, hyperparameters).compile()
        state = compiled_start(params, hyperparameters)
        clock = time.perf_counter()
        compiled_step = jax.jit(step).lower(params, state, batch, hyperparameters).compile()
        compile_seconds = time.perf_counter() - clock
        # The first call pays for pages and threads: let it be none of those that are timed.
        jax.block_until_ready(compiled_step(params, state, batch, hyperparameters))
    return Prepared(setting, optimizer, compiled_start, compiled_step, compile_seconds)


def batches(setting: Setting, seed: int) -> Iterator[Any]:
    """The stream on the device; a batch that comes again is not copied again."""
    held, placed = None, None
    for batch in setting.problem.stream(setting.problem.load(), seed):
        if batch is not held:
            held, placed = batch, jax.tree.map(jnp.asarray, batch)
        yield placed


@dataclass
class _Recorder:
    """Collects rows, and tells when a run is over."""

    problem: Problem
    rows: list[dict[str, float]] = field(default_factory=list)
    unchanged: int = 0

    def add(self, row: dict[str, float]) -> Status | None:
        value, grad_norm = row["value"], row["grad_norm"]
        before = self.rows[-1] if self.rows else None
        self.rows.append(row)
        limit = DIVERGED_ABOVE * max(1.0, abs(self.rows[0]["value"]))
        if not (math.isfinite(value) and math.isfinite(grad_norm)) or value > limit:
            return Status.DIVERGED
        if grad_norm <= self.problem.grad_norm_target or self.problem.solved(row):
            return Status.CONVERGED
        same = before is not None and (value, grad_norm) == (before["value"], before["grad_norm"])
        self.unchanged = self.unchanged + 1 if same else 0
        return Status.STALLED if self.unchanged >= STALLED_AFTER else None


def run(
    prepared: Prepared,
    seed: int,
    steps: int,
    hyperparameters: Mapping[str, float] | None = None,
    *,
    every: int = 1,
    on_step: Callable[[int], None] = lambda step: None,
) -> Run:
    """Trains from one seed until converged, stalled, diverged or out of steps.

    Row k describes the point after k steps: its value and gradient norm over all training data,
    what the k steps cost in gradient-equivalents and seconds, and the diagnostics of the step that
    led there. With `every` above one only every so many steps are looked at.
    """
    setting, optimizer, problem = prepared.setting, prepared.optimizer, prepared.problem
    with numerics(problem):
        chosen = {
            name: jnp.asarray(number, float) for name, number in (hyperparameters or {}).items()
        }
        params = problem.init(jax.random.key(seed), setting.data)
        state = prepared.start(params, chosen)
        stream = batches(setting, seed)
        batch = next(stream)

        recorder, status, seconds, diagnostics = _Recorder(problem), None, 0.0, {}
        # A line search that hands its last gradient on still needs one to begin with.
        spent = GRADIENT if optimizer.reuses_gradient and problem.is_full_batch else 0.0
        most = math.inf if problem.seconds is None else problem.seconds
        for count in range(steps + 1):
            over = count == steps or seconds >= most
            if count % every == 0 or over:
                measured = setting.measure(params, setting.everything, setting.data)
                row = {
                    "step": count,
                    "gradient_equivalents": spent if count else 0.0,
                    "seconds": seconds,
                }
                row |= {name: float(number) for name, number in measured.items()}
                status = recorder.add(row | diagnostics)
                if status or over:
                    break
            clock = time.perf_counter()
            params, state, record = jax.block_until_ready(
                prepared.step(params, state, batch, chosen)
            )
            seconds += time.perf_counter() - clock
            diagnostics = {name: float(number) for name, number in record.items()}
            spent += optimizer.step_cost(diagnostics)
            if optimizer.reuses_gradient and not problem.is_full_batch:
                spent += GRADIENT  # the gradient at hand is of another batch
            batch = next(stream)
            on_step(count + 1)
    return Run(
        problem=problem.name,
        optimizer=optimizer.name,
        seed=seed,
        status=str(status or Status.STEP_LIMIT),
        columns=_columns(recorder.rows),
        hyperparameters=dict(hyperparameters or {}),
        compile_seconds=prepared.compile_seconds,
    )


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
