"""Checks of the outputs of a user's functions, at trace time; each failure is a sentence."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from secondorder.tree._gaps import has_gaps


def number(fn: Callable, user: str, kind: str = "objective") -> Callable:
    """``fn`` with a check that it returns one real number.

    A constant of Python or NumPy is accepted: its derivative is zero.

    Args:
      fn: a function of any arguments.
      user: name of the caller, for the message.
      kind: kind of function, for the message.
    """

    @functools.wraps(fn)
    def checked(*args: Any) -> jax.Array:
        with traced(user, kind, args):
            return as_number(fn(*args), user, kind)

    return checked


def as_number(value: Any, user: str, kind: str = "objective") -> jax.Array:
    """``value`` as a real scalar array, or an error; see :func:`number`."""
    needs = f"{user} needs {kind_of(kind)} that returns one number, but it returned"
    if isinstance(value, (tuple, list)) and len(value) == 2 and _shape(value[0]) == ():
        raise ValueError(
            f"{needs} a pair {described(value)}. Where the second is auxiliary output, pass "
            "has_aux=True to minimize or least_squares; elsewhere pass lambda p: value_fn(p)[0]."
        )
    if value is None:
        raise ValueError(f"{needs} None. Is a `return` missing?")
    if _shape(value) != ():
        raise ValueError(
            f"{needs} {described(value)}. Reduce it (jnp.mean, jnp.sum), or call least_squares for "
            "a vector of residuals."
        )
    return _real_or_constant(value, needs, "the real part (x.real) or a modulus (abs(x))")


def arrays(fn: Callable, user: str, kind: str = "model", *, integers: bool = False) -> Callable:
    """``fn`` with a check that it returns floating-point arrays.

    Args:
      fn: a function of any arguments.
      user: name of the caller, for the message.
      kind: kind of function, for the message.
      integers: whether arrays of integers are allowed too, such as labels for a user's own loss.
    """

    @functools.wraps(fn)
    def checked(*args: Any) -> Any:
        with traced(user, kind, args):
            return as_arrays(fn(*args), user, kind, integers=integers)

    return checked


def as_arrays(outputs: Any, user: str, kind: str = "model", *, integers: bool = False) -> Any:
    """``outputs`` as a tree of arrays, or an error; see :func:`arrays`."""
    if not jax.tree.leaves(outputs):
        raise ValueError(
            f"{user} needs {kind_of(kind)} that returns arrays, but it returned {outputs!r}. Is a "
            "`return` missing?"
        )

    def leaf(path: Any, x: Any) -> jax.Array:
        place = jax.tree_util.keystr(path)
        needs = f"{user} needs {kind_of(kind)} that returns floating-point arrays, but it returned"
        if _shape(x) is None:
            raise TypeError(f"{needs} {x!r}{place and f' at outputs{place}'}. Return arrays alone.")
        if integers or jnp.issubdtype(_dtype(x), jnp.complexfloating):
            return jnp.asarray(x)
        return _real_or_constant(x, needs, "real arrays", place and f" at outputs{place}")

    return jax.tree_util.tree_map_with_path(leaf, outputs)


@contextlib.contextmanager
def traced(user: str, kind: str, args: Any = ()) -> Iterator[None]:
    """Context of a user's function, which replaces words of JAX and Python by a sentence.

    For a traced array in NumPy, and for parameters that a wrapper of Optax has changed.

    Args:
      user: name of the caller, for the message.
      kind: kind of function, for the message.
      args: the arguments of the function. A gap among them explains any error: JAX takes one for an
        empty array, so that the words of the error need not name it.
    """
    try:
        yield
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"{user} cannot differentiate {kind_of(kind)} that calls NumPy: use jax.numpy instead, "
            "for every array that depends on the parameters (the line is in the error above)."
        ) from error
    except Exception as error:
        # What fills the gaps is called with them, so only the innermost function is judged.
        if getattr(error, "explained", False):
            raise
        sentence = GAPS if has_gaps(args) else FLAT if "string indexing" in str(error) else None
        error = error if sentence is None else _caused(error, user, kind, sentence)
        error.explained = True  # type: ignore[attr-defined]
        raise error


def _caused(error: Exception, user: str, kind: str, sentence: str) -> Exception:
    explained = TypeError(f"{user} cannot evaluate the {kind}: {sentence}")
    explained.__cause__ = error
    return explained


GAPS = (
    "params has gaps here, as optax.partition and optax.masked make them. Pass "
    "value_fn=secondorder.restrict(value_fn, params) to update, and to a method with example= also "
    "example=secondorder.restrict(example, params); params are those of all groups, without gaps. "
    "(minimize and least_squares take no partition: pass them an objective of the trained leaves, "
    "with the others in its closure.)"
)
FLAT = (
    "it looks up a name in params, which is one array here. Leave optax.flatten out, since methods "
    "take any tree; and with optax.inject_hyperparams, which takes a function for a schedule, name "
    "it: static_args='example'."
)


def optimizer(given: Any) -> None:
    """Raise an error unless ``given`` is an Optax transformation.

    Raises:
      TypeError: a method that was not called, or anything else.
    """
    if hasattr(given, "init") and hasattr(given, "update"):
        return
    cure = "Pass an Optax transformation, such as secondorder.bfgs(), or None for the default."
    if callable(given):
        cure = f"Call it: {getattr(given, '__name__', 'the factory')}(), which makes an optimizer."
    raise TypeError(f"optimizer must be an Optax transformation, but is {given!r}. {cure}")


def kind_of(kind: str) -> str:
    """The kind with its article."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def described(value: Any) -> str:
    """A description of a value by dtypes and shapes."""
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(described, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {described(v)}' for k, v in value.items())}}}"
    if _shape(value) is None:
        return repr(value)
    return f"{_dtype(value)}{list(np.shape(value))}"


def _shape(x: Any) -> tuple[int, ...] | None:
    """The shape of a number or an array; ``None`` for anything else."""
    if isinstance(x, (bool, int, float, complex)) or hasattr(x, "dtype"):
        return np.shape(x)
    return None


def _dtype(x: Any) -> Any:
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


def _real_or_constant(x: Any, needs: str, real: str, place: str = "") -> jax.Array:
    dtype = _dtype(x)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(x)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"{needs} {described(x)}{place}, which is complex. Return {real}.")
    if jnp.issubdtype(dtype, jnp.integer) and not isinstance(x, jax.Array):
        return jnp.asarray(x, float)
    raise TypeError(
        f"{needs} {described(x)}{place}, which has no derivative. Return floating-point numbers, "
        "and round, count or compare outside of the function."
    )
