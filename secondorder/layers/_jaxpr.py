"""Version-independent access to jaxprs, and runs of a function as one program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import Tracer, eval_jaxpr

SMALL = 1024  # bytes of a constant that is written into a program


def within_a_program() -> bool:
    """Whether the call is a part of a program already, or is to run operation by operation."""
    disabled = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
    return disabled or isinstance(jax.lax.full((), 0), Tracer)


def as_one_program(fn: Callable, *args: Any) -> Any:
    """``fn(*args)``, compiled as one program."""
    if within_a_program():  # as least_squares is of curve_fit: tracing it twice gains nothing
        return fn(*args)
    run, closed, structure = program_of(fn, args)
    return jax.tree.unflatten(structure, run(closed, jax.tree.leaves(args)))


def program_of(
    fn: Callable, args: tuple, known: Callable[[Any], bool] = lambda array: False
) -> tuple[Callable, list[Any], Any]:
    """``(run, closed, structure)`` with ``run(closed, leaves of args)`` the leaves of a result.

    ``closed`` are the arrays that ``fn`` closes over: large constants would be written into the
    program and folded by the compiler, small ones are.

    Args:
      known: whether an array is to be among them whatever its size.
    """
    program, outputs = jax.make_jaxpr(fn, return_shape=True)(*args)
    jaxpr, consts = program.jaxpr, program.consts
    is_closed = [known(c) or isinstance(c, Tracer) or c.nbytes > SMALL for c in consts]
    closed = [c for c, apart in zip(consts, is_closed, strict=True) if apart]
    small = [None if apart else c for c, apart in zip(consts, is_closed, strict=True)]

    def run(closed: list[Any], leaves: list[Any]) -> list[Any]:
        left = iter(closed)
        filled = [next(left) if apart else c for c, apart in zip(small, is_closed, strict=True)]
        return eval_jaxpr(jaxpr, filled, *leaves)

    return jax.jit(run, inline=True), closed, jax.tree.structure(outputs)


def converted(fn: Callable, *examples: Any) -> tuple[Callable, list[Any]]:
    """``(closed, θ)`` with ``closed(*args, *θ)`` the same as ``fn(*args)``, traced once.

    θ are the traced arrays that ``fn`` closes over, with respect to which a caller may
    differentiate. As ``jax.closure_convert``, which keeps every function that it has met.
    """
    program, outputs = jax.make_jaxpr(fn, return_shape=True)(*examples)
    jaxpr, consts, structure = program.jaxpr, program.consts, jax.tree.structure(outputs)
    moves = [isinstance(c, Tracer) for c in consts]
    theta = [c for c, moving in zip(consts, moves, strict=True) if moving]
    count = len(examples)  # ``closed`` keeps no example, which may be traced
    rest = [None if moving else c for c, moving in zip(consts, moves, strict=True)]

    def closed(*inputs: Any) -> Any:
        args, given = inputs[:count], iter(inputs[count:])
        filled = [next(given) if moving else c for c, moving in zip(rest, moves, strict=True)]
        return jax.tree.unflatten(structure, eval_jaxpr(jaxpr, filled, *jax.tree.leaves(args)))

    return closed, theta


def is_literal(atom: Any) -> bool:
    """Whether an operand of an equation is a literal, not a variable.

    Tested by a field: importing ``jax.extend``, with the class, takes a third of the import time.
    """
    return hasattr(atom, "val")


def bind(eqn: Any, values: Sequence[Any], **changed: Any) -> list[Any]:
    """The results of an operation on other operands, with changed parameters."""
    bound = eqn.primitive.get_bind_params(eqn.params | changed)
    subfunctions, params = bound if isinstance(bound, tuple) else ((), bound)
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*subfunctions, *values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def programs(eqn: Any) -> list[Any]:
    """The inner programs of an equation, under any parameter name."""
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns") and hasattr(item, "invars"):
                found.append(item)
            elif hasattr(item, "jaxpr") and hasattr(item.jaxpr, "eqns"):
                found.append(item)
    return found


def opened(program: Any) -> tuple[Any, list[Any]]:
    """The jaxpr of a program and the values of its constants."""
    return getattr(program, "jaxpr", program), list(getattr(program, "consts", ()))


def scan_counts(eqn: Any) -> tuple[int, int]:
    """The numbers of constants and of carried values of a scan."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    constants, carry, _ = eqn.params["ft_in"].elts  # from JAX 0.12 on
    return len(constants), len(carry)


def alive(jaxpr: Any, effects: bool = False) -> list[int]:
    """The numbers of the equations that the outputs (with ``effects``: side effects) need."""
    wanted = {v for v in jaxpr.outvars if not is_literal(v)}
    found = []
    for number in reversed(range(len(jaxpr.eqns))):
        eqn = jaxpr.eqns[number]
        if wanted.intersection(eqn.outvars) or (effects and eqn.effects):
            found.append(number)
            wanted.update(v for v in eqn.invars if not is_literal(v))
    return found[::-1]


def beginnings(eqn: Any) -> list[tuple[int, ...]] | None:
    """The starts of the slices of an equation; ``None`` if unknown, or with strides."""
    name, params, shape = eqn.primitive.name, eqn.params, eqn.invars[0].aval.shape
    if name == "slice":
        return [params["start_indices"]] if set(params["strides"] or ()) <= {1} else None
    if name == "split":
        ends = [0, *itertools.accumulate(params["sizes"])][:-1]
        return [tuple(e if i == params["axis"] else 0 for i in range(len(shape))) for e in ends]
    if not all(is_literal(v) for v in eqn.invars[1:]):
        return None
    most = [n - m for n, m in zip(shape, params["slice_sizes"], strict=True)]
    given = [int(v.val) for v in eqn.invars[1:]]
    return [tuple(min(max(i, 0), n) for i, n in zip(given, most, strict=True))]
