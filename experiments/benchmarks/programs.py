"""Solvers behind one face: prepared for a problem once, then run from any start.

A solver is ``prepare(function, precision, x, *extra) -> Program`` for a ``function(x, *extra)``:
a vector of residuals for least squares, a number for minimisation.
"""

import importlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import secondorder as so
from experiments.benchmarks.judge import Precision
from experiments.errors import UserError

STEPS = 1000  # of every solver: steps, or evaluations where it counts those


class Ended(NamedTuple):
    """Where a solver ended, and what it says of it.

    Attributes:
      params: the parameters.
      claimed: whether it claims success.
      status: in its own words, or its own number.
      steps: iterations, by its own count.
      cost: what it evaluated, in one unit for all.
    """

    params: Any
    claimed: Any
    status: Any
    steps: Any
    cost: Any


class Program(NamedTuple):
    """A solver compiled for a problem; ``run`` is what is timed, ``read`` is not."""

    run: Callable[..., Any]
    read: Callable[[Any], Ended]
    compile_seconds: float


Prepare = Callable[..., Program]


def traced(solve: Callable, name_of: Callable[[int], str] = str) -> Prepare:
    """A solver that compiles as a whole: ``solve(function, x, precision) -> Ended``."""

    def prepare(function: Callable, precision: Precision, x: Any, *extra: Any) -> Program:
        whole = lambda x, *extra: solve(lambda p: function(p, *extra), x, precision)
        begin = time.perf_counter()
        program = jax.jit(whole).lower(x, *extra).compile()
        seconds = time.perf_counter() - begin

        def read(end: Ended) -> Ended:
            return Ended(
                np.asarray(end.params, float),
                bool(end.claimed),
                name_of(int(end.status)),
                int(end.steps),
                float(end.cost),
            )

        return Program(lambda *inputs: jax.block_until_ready(program(*inputs)), read, seconds)

    return prepare


def ours(solve: Callable, optimizer: Callable, cost: Callable[[so.Evaluations, int], Any]):
    """A method of this library; ``cost`` of its evaluations and the size."""

    def solved(function: Callable, x: Any, precision: Precision) -> Ended:
        end = solve(function, x, optimizer(), tol=precision.tolerance, max_steps=STEPS)
        price = cost(end.evaluations, x.size)
        return Ended(end.params, end.success, end.status, end.steps, price)

    return traced(solved, lambda number: so.Status(number).name.lower())


def peer(module: str) -> Any:
    """The module of a peer, or a sentence where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"This benchmark compares with {module.capitalize()}, which is not installed. "
            'Install the extra "peers": pip install -e ".[experiments,peers]"; '
            "or name with --solvers those to run without it."
        ) from error


def needs_peers(solvers: Iterable[str]) -> None:
    """Says at once, not after half an hour, that one is missing."""
    for name in solvers:
        if name.startswith(("optimistix", "jaxopt")):
            peer(name.split("-")[0])


def of_optimistix(kind: str, least_squares: bool, cost: Callable) -> Prepare:
    """An Optimistix solver at its defaults; ``cost`` of its steps, accepted steps and the size."""

    def solved(function: Callable, x: Any, precision: Precision) -> Ended:
        optx = peer("optimistix")
        solver = getattr(optx, kind)(rtol=precision.tolerance, atol=precision.tolerance)
        solve = optx.least_squares if least_squares else optx.minimise
        end = solve(lambda p, args: function(p), solver, x, max_steps=STEPS, throw=False)
        claimed = end.result == optx.RESULTS.successful
        steps = end.stats["num_steps"]
        price = cost(steps, end.state.num_accepted_steps, x.size)
        return Ended(end.value, claimed, jnp.where(claimed, 1, 0), steps, price)

    return traced(solved, lambda number: "successful" if number else "failed")


def of_jaxopt() -> Prepare:
    """JAXopt's Levenberg-Marquardt at its defaults."""

    def solved(function: Callable, x: Any, precision: Precision) -> Ended:
        method = peer("jaxopt").LevenbergMarquardt(function, tol=precision.tolerance, maxiter=STEPS)
        params, state = method.run(x)
        claimed, steps = state.error <= precision.tolerance, state.iter_num
        return Ended(params, claimed, jnp.where(claimed, 1, 0), steps, steps * (1 + x.size))

    return traced(solved, lambda number: "small gradient" if number else "step limit")


def of_optax(optimizer: Callable, objective: Callable[[Callable], Callable], gradient: float):
    """Optax's L-BFGS, which has no loop of its own, in the loop of its guide, with our test.

    ``objective`` makes a number of the function; ``gradient`` is the cost of one with its value.
    """

    def solved(function: Callable, x: Any, precision: Precision) -> Ended:
        tol = precision.tolerance
        fn, method = objective(function), optimizer()
        value_and_grad = optax.value_and_grad_from_state(fn)

        def measure(params, value, grad):
            return jnp.linalg.norm(grad * jnp.maximum(jnp.abs(params), 1)), jnp.abs(value)

        def body(carry):
            params, state, steps, trials, first, steepest, _ = carry
            value, grad = value_and_grad(params, state=state)
            slope, size = measure(params, value, grad)
            first = jnp.where(steps == 0, size, first)
            steepest = jnp.maximum(steepest, slope)
            yardstick = jnp.minimum(
                jnp.maximum(size, jnp.minimum(first, 1)), jnp.maximum(steepest, 1)
            )
            done = slope <= tol * yardstick
            updates, new = method.update(grad, state, params, value=value, grad=grad, value_fn=fn)
            searched = optax.tree.get(new, "num_linesearch_steps").astype(trials.dtype)
            params = jnp.where(done, params, params + updates)
            steps, trials = steps + ~done, trials + jnp.where(done, 0, searched)
            return params, new, steps, trials, first, steepest, done

        def going(carry):
            return ~carry[-1] & (carry[2] < STEPS)

        none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), x.dtype)
        start = (x, method.init(x), none, none, zero, zero, jnp.asarray(False))
        params, _, steps, trials, _, _, done = jax.lax.while_loop(going, body, start)
        return Ended(params, done, done, steps, gradient * (1 + trials))

    return traced(solved, lambda number: "small gradient" if number else "step limit")
