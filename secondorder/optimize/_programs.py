"""Cache of compiled solves, by the code and data of their functions."""

from __future__ import annotations

import collections
import threading
import warnings
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from secondorder.layers._jaxpr import program_of, within_a_program
from secondorder.notices import AdviceWarning, frames_within, page
from secondorder.objectives._base import is_objective
from secondorder.optimize._identity import NoKey, Reader

MOST = 128  # limit of programs; the least recently used one is dropped first
LARGEST = 2**20  # limit in bytes of the constants of a program
PATIENCE = 10  # compilations of one function before a warning

# Without the emitters of fused kernels XLA compiles in half the time, and runs small arrays as
# fast. Later versions of JAX have no such switch.
QUICKLY = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
SMALL = 2**20  # limit in bytes of all arrays

# JAX settings that change a trace, besides the precision of a Python number.
SETTINGS = (
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_default_device",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_check_tracer_leaks",
)


class RecompilationWarning(AdviceWarning):
    """Warning: a function compiles again at each call, since its closure is another one.

    Example:
      >>> import warnings, jax.numpy as jnp, secondorder as so
      >>> with warnings.catch_warnings():
      ...     warnings.simplefilter("ignore", so.RecompilationWarning)
      ...     fits = [so.minimize(lambda p: (p - 1.0) ** 2, jnp.array(0.0))]
    """


class Program(NamedTuple):
    """A compiled solve.

    Attributes:
      run: ``(constants, leaves) -> leaves``.
      constants: constants of the program: arrays, or indices into the arrays of its key.
      structure: tree structure of the result.
    """

    run: Callable[[list[Any], list[Any]], list[Any]]
    constants: list[Any]
    structure: Any


_programs: collections.OrderedDict[Hashable, Program] = collections.OrderedDict()
_compiled: collections.Counter[Any] = collections.Counter()
_lock = threading.Lock()


def kept(
    solve: Callable,
    fixed: tuple,
    arrays: tuple,
    user: str,
    first: Callable[[], None] = lambda: None,
) -> Any:
    """``solve(*fixed, *arrays)``, compiled at the first call and reused at later calls.

    Within another transformation, and with traced arrays, a plain call. If ``fixed`` has no key, or
    reads the values of the arrays, a plain call that compiles anew. The arrays in the closures of
    ``fixed`` are not kept alive.

    Args:
      solve: a function of this library.
      fixed: functions and settings, starting with the function to solve.
      arrays: trees of arrays; leaves of other kinds count as settings.
      user: name of the caller, for a warning.
      first: called before a compilation; for checks that would take a part of a later call's time.
    """
    leaves, structure = jax.tree.flatten(arrays)
    if any(isinstance(leaf, Tracer) for leaf in leaves) or within_a_program():
        first()
        return solve(*fixed, *arrays)
    name, closed = _key(solve, fixed, leaves, structure)
    program = _found(name)
    if program is None:
        first()
        program = None if name is None else _compile(solve, fixed, leaves, structure, closed)
        if program is None or closed:
            others = _key(solve, fixed[1:], leaves, structure)[0]  # the call without its function
            _count(fixed[0], others, user)
        if program is None:
            return solve(*fixed, *arrays)
        _keep(name, program)
    constants = [closed[c] if isinstance(c, int) else c for c in program.constants]
    inputs = [leaf for leaf in leaves if _is_array(leaf)]
    return jax.tree.unflatten(program.structure, program.run(constants, inputs))


def _found(name: Hashable) -> Program | None:
    with _lock:
        program = _programs.get(name)
        if program is not None:
            _programs.move_to_end(name)
    return program


def clear() -> None:
    """Drop all programs."""
    with _lock:
        _programs.clear()
        _compiled.clear()


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _key(
    solve: Callable, fixed: tuple, leaves: list, structure: Any
) -> tuple[Hashable, list[jax.Array]]:
    """The key of a call, ``None`` if it has none, and the arrays that its functions close over."""
    reader = Reader()
    try:
        settings = tuple(getattr(jax.config, name) for name in SETTINGS)
        shapes = tuple(_shape(leaf, reader) for leaf in leaves)
        name = solve, reader.key(fixed), structure, shapes, jnp.result_type(float), settings
        return name, reader.arrays
    except NoKey:
        return None, []


def _shape(leaf: Any, reader: Reader) -> Hashable:
    if isinstance(leaf, jax.Array):
        return leaf.aval, leaf.sharding
    return (leaf.shape, leaf.dtype) if _is_array(leaf) else reader.key(leaf)


def _compile(
    solve: Callable, fixed: tuple, leaves: list, structure: Any, closed: list[jax.Array]
) -> Program | None:
    """The program of a call; ``None`` where its trace fails, as by reading values of arrays."""
    is_input = [_is_array(leaf) for leaf in leaves]

    def whole(*inputs: Any) -> Any:
        left = iter(inputs)
        filled = [next(left) if own else leaf for own, leaf in zip(is_input, leaves, strict=True)]
        return solve(*fixed, *jax.tree.unflatten(structure, filled))

    inputs = tuple(leaf for leaf, own in zip(leaves, is_input, strict=True) if own)
    places = {id(array): place for place, array in enumerate(closed)}
    try:
        run, constants, result = program_of(whole, inputs, lambda array: id(array) in places)
    except Exception:
        return None  # the plain call has the values, or raises the same error
    small = sum(x.nbytes for x in (*constants, *inputs)) <= SMALL
    options = QUICKLY if small and jax.default_backend() == "cpu" else None
    # Only the executable: a jitted function keeps the user's function and its closure alive.
    executable = run.lower(constants, list(inputs)).compile(compiler_options=options)
    return Program(executable, [places.get(id(c), c) for c in constants], result)


def _keep(name: Hashable, program: Program) -> None:
    if sum(c.nbytes for c in program.constants if hasattr(c, "nbytes")) > LARGEST:
        return
    with _lock:
        _programs[name] = program
        while len(_programs) > MOST:
            _programs.popitem(last=False)


def _count(fn: Any, others: Hashable, user: str) -> None:
    """Count the compilations of a function for one and the same call; warn of many."""
    name = getattr(fn, "__code__", type(fn)), others
    with _lock:
        if len(_compiled) >= MOST:
            _compiled.clear()
        _compiled[name] += 1
        often = _compiled[name] == PATIENCE
    if not often:
        return
    cure = "Pass the data as arguments, args=(x, y), and one program serves them all."
    if is_objective(fn):
        cure = "Solve inside a jitted function of the data, which builds the objective."
    warnings.warn(
        f"{user} has compiled {getattr(fn, '__qualname__', type(fn).__name__)} {PATIENCE} times, "
        "since its closure has other arrays at each call, or what may change unseen. "
        f"{cure} {page('compiling')}",
        RecompilationWarning,
        stacklevel=frames_within() + 1,
    )
