"""Callbacks of a solve: called on the host with the current point, and able to end the solve.

A kept program outlives a callback, so it gets the number of a callback and not the callback itself.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder.layers._jaxpr import within_a_program
from secondorder.optimize._progress import Display
from secondorder.tree import Params


class Iterate(NamedTuple):
    """The point of a solve that a callback gets.

    Attributes:
      steps: number of updates so far, rejected ones included.
      params: the parameters.
      value: the objective there.
      grad_norm: ``‖∇f‖₂`` there.
      scale: the number for the next step, λ, Δ or σ; infinite for an optimizer without one.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> near = lambda iterate: bool(iterate.value < 1e-3)  # true ends the solve
      >>> f = lambda p: jnp.sum(p**4)
      >>> solution = so.minimize(f, jnp.ones(2), callback=near)
      >>> so.Status(int(solution.status)).name, bool(solution.value < 1e-3)
      ('STOPPED', True)
    """

    steps: jax.Array
    params: Params
    value: jax.Array
    grad_norm: jax.Array
    scale: jax.Array


class WithoutParams(NamedTuple):
    """A ``watch`` that gets no parameters, which would be copied to the host for nothing."""

    watch: Watch


Callback = Callable[[Iterate], Any]  # of a user; the solve ends where it returns true
Question = Callable[[jax.Array, Iterate], jax.Array]  # the callback within a program
Watch = jax.typing.ArrayLike | Question | WithoutParams | None  # what a solve takes for a callback


class Watcher:
    """A callback whose errors are kept until the solve has ended, and a display."""

    def __init__(self, callback: Callback | None, display: Display | None):
        self.callback, self.display, self.error = callback, display, None

    def __call__(self, active: Any, iterate: Iterate) -> np.bool_:
        """Whether the solve is to end; ``active`` is false in a lane of a batch that has ended."""
        if self.error is not None or not active:
            return np.bool_(self.error is not None)
        try:
            iterate = jax.tree.map(np.asarray, iterate)
            if self.display is not None:
                self.display(iterate)
            found = self.callback is not None and self.callback(iterate)
        except StopIteration:
            return np.bool_(True)
        except Exception as error:
            self.error = error
            return np.bool_(True)
        is_flag = isinstance(found, bool) or getattr(found, "dtype", None) == np.dtype(bool)
        return np.bool_(is_flag and np.all(found))


_watchers: dict[int, Watcher] = {}
_numbers = itertools.count(1)


@contextlib.contextmanager
def watched(
    callback: Callback | None, arrays: Any, display: Display | None = None
) -> Iterator[Watch]:
    """Context with what a solve takes as its ``watch``: nothing, a number, or a function.

    The solve must have ended before the context does; see :func:`ended`.

    Args:
      arrays: the arguments of the solve; a traced solve keeps the callback in its program.
    """
    if callback is None and display is None:
        yield None
        return
    watcher = Watcher(callback, display)
    form = WithoutParams if callback is None else lambda watch: watch
    if within_a_program() or any(isinstance(x, Tracer) for x in jax.tree.leaves(arrays)):
        yield question(form(_question(watcher)))
        return
    number = next(_numbers)
    _watchers[number] = watcher
    try:
        if display is not None:
            display.open()
        yield form(np.int32(number))
    finally:
        del _watchers[number]
        if display is not None:
            display.close()
        if watcher.error is not None:
            raise watcher.error


def ended(result: Any, watch: Watch, display: Display | None = None) -> Any:
    """A result, after the end of its computation where a callback is called by number."""
    if watch is None or callable(watch):
        return result
    result = jax.block_until_ready(result)
    if display is not None:
        display.end(getattr(result, "solution", result).message)
    return result


def question(watch: Watch) -> Question | None:
    """``(active, iterate) ↦`` whether to end the solve, of a ``watch``."""
    if watch is None or callable(watch):
        return watch
    if isinstance(watch, WithoutParams):
        asks = question(watch.watch)
        return asks and (lambda active, iterate: asks(active, iterate._replace(params=None)))
    return _question(lambda number, *of: _watchers[int(number)](*of), watch)


def _question(host: Callable, *before: jax.typing.ArrayLike) -> Question:
    answer = jax.ShapeDtypeStruct((), jnp.bool_)
    # An effect, as of ``io_callback``, has no rule for ``vmap`` within a loop.
    ask = functools.partial(jax.pure_callback, host, answer, *before, vmap_method="sequential")
    return lambda active, iterate: ask(active, iterate)
