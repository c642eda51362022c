"""Keys of functions: the code, and the values of all names that it reads.

Two functions with equal keys return the same for the same arguments, so they can share a compiled
program. A key contains closures, defaults, the globals named in the code, bound objects and all
called functions, since each of them can change between two calls. If a part could change without a
change of the key, the function has no key.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import sys
import types
import weakref
from collections.abc import Hashable, Iterable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

LARGEST = 2**20  # bytes of a NumPy array that is read at every call, since it may change in place
DEPTH = 40
# Builtins that read names which do not appear in the code.
UNREADABLE = frozenset(("globals", "locals", "vars", "eval", "exec", "__import__", "open", "input"))

# Packages with unchanging functions; other packages may read globals that change.
LIBRARIES = frozenset(
    "builtins secondorder jax jaxlib numpy scipy optax flax equinox haiku chex jaxtyping diffrax "
    "lineax optimistix jaxopt".split()
) | set(sys.stdlib_module_names)


class NoKey(Exception):
    """Raised for a value that is traced, or that may change without a change of the key."""


class Same:
    """A key by identity of an object, which it keeps alive."""

    __slots__ = ("of",)

    def __init__(self, of: Any):
        self.of = of

    def __hash__(self) -> int:
        return id(self.of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.of is other.of


class Alive:
    """A key by identity of an object, with a weak reference."""

    __slots__ = ("number", "of")

    def __init__(self, of: Any):
        self.number, self.of = id(of), weakref.ref(of)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        mine = self.of()
        return mine is not None and isinstance(other, Alive) and other.of() is mine


class Reader:
    """Reader of the key of a value.

    Attributes:
      arrays: the JAX arrays in the value, which become arguments of a program.
      of_users: whether a part of the value may change between two calls.
    """

    # Keys of library functions without parts that a user can change.
    _known: weakref.WeakKeyDictionary[Any, Hashable] = weakref.WeakKeyDictionary()

    def __init__(self, opened: tuple[Any, ...] = ()) -> None:
        self.arrays: list[jax.Array] = []
        self.of_users = False
        self._opened = opened  # library functions being read, the outermost first
        self._outermost = len(opened)  # index of the outermost that appeared again
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # keeps objects alive, so that no id is reused

    def key(self, x: Any, depth: int = 0) -> Hashable:
        """The key of a value.

        Raises:
          NoKey: see the module.
        """
        kind = type(x)
        if x is None or x is Ellipsis or kind in (bool, int, str, bytes, complex):
            return kind, x
        if kind is float:
            return kind, x.hex()
        if isinstance(x, np.generic | np.dtype):
            return str(getattr(x, "dtype", "")), repr(x)
        if isinstance(x, Tracer) or depth > DEPTH:
            raise NoKey
        if isinstance(x, types.BuiltinFunctionType | np.ufunc | enum.Enum):
            return Same(x)
        if isinstance(x, Same):
            return x
        if isinstance(x, types.ModuleType):
            if not _is_library(x.__name__):
                raise NoKey  # which of its members count is not known here
            return Same(x)
        if kind is object:  # a sentinel without state
            return Same(x)
        if id(x) in self._seen:
            return "again", self._seen[id(x)]
        self._seen[id(x)] = len(self._seen)
        self._kept.append(x)
        return self._composite(x, kind, depth + 1)

    def _each(self, parts: Iterable[Any], depth: int) -> tuple[Hashable, ...]:
        return tuple(self.key(part, depth) for part in parts)

    def _composite(self, x: Any, kind: type, depth: int) -> Hashable:
        if isinstance(x, types.FunctionType):
            return self._of_function(x, depth)
        if isinstance(x, types.MethodType):
            return self._each((x.__func__, x.__self__), depth)
        if isinstance(x, functools.partial):
            return Same(kind), self._each((x.func, x.args, x.keywords), depth)
        if kind in (tuple, list) or (isinstance(x, tuple) and hasattr(x, "_fields")):
            return Same(kind), self._each(x, depth)
        if isinstance(x, dict | types.MappingProxyType) and kind in (dict, types.MappingProxyType):
            return self._each(x.keys(), depth), self._each(x.values(), depth)
        if isinstance(x, type):
            return self._of_class(x, depth)
        if isinstance(x, jax.tree_util.PyTreeDef):
            return hash(x), str(x)
        if isinstance(x, functools._lru_cache_wrapper):
            return Same(kind), self.key(x.__wrapped__, depth)
        if _is_of_a_library(x):
            return Same(x)  # such as jax.nn.relu
        if isinstance(x, jax.Array):
            self.of_users = True
            self.arrays.append(x)
            return Alive(x)
        if isinstance(x, np.ndarray):
            return self._of_buffer(x)
        if kind.__module__.startswith("jaxlib") and callable(x):  # of jax.jit
            inner = getattr(x, "__wrapped__", None)
            return Alive(x), self.key(inner, depth)
        return self._of_object(x, kind, depth)

    def _of_buffer(self, x: np.ndarray) -> Hashable:
        self.of_users = True
        if x.nbytes > LARGEST or x.dtype.hasobject:
            raise NoKey
        data = hashlib.blake2b(np.ascontiguousarray(x).tobytes(), digest_size=16).digest()
        return np.ndarray, x.dtype.str, x.shape, data

    def _of_object(self, x: Any, kind: type, depth: int) -> Hashable:
        """The key of an object that is defined by its attributes and the code of its class."""
        slots = any(getattr(base, "__slots__", ()) for base in kind.__mro__)
        builtin = any(b.__module__ == "builtins" and b is not object for b in kind.__mro__)
        if slots or builtin or not hasattr(x, "__dict__"):
            raise NoKey
        fields = vars(x)
        return self.key(kind, depth), tuple(fields), self._each(fields.values(), depth)

    def _of_class(self, x: type, depth: int) -> Hashable:
        """The key of a class; for a user's class, with its methods and attributes."""
        if _is_library(x.__module__):
            return Same(x)
        self.of_users = True
        parts = []
        for base in x.__mro__:
            for name, value in () if _is_library(base.__module__) else vars(base).items():
                function = getattr(value, "__func__", getattr(value, "fget", value))
                if isinstance(function, types.FunctionType):
                    parts.append(function)
                elif not name.startswith(("__", "_abc_")) and not hasattr(value, "__get__"):
                    parts.append(value)
        return Same(x), self._each(parts, depth)

    def _of_function(self, fn: types.FunctionType, depth: int) -> Hashable:
        cells = list(map(_contents, fn.__closure__ or ()))
        parts = [fn.__defaults__, fn.__kwdefaults__, *cells]
        if not _is_library(fn.__module__):
            self.of_users = True
            own = fn.__defaults__, fn.__kwdefaults__, vars(fn)
            return fn.__code__, self._each((*own, *_values_of(fn, cells)), depth)
        if not fn.__closure__ and "<locals>" not in fn.__qualname__:
            return Same(fn)
        if fn in Reader._known:
            return Reader._known[fn]
        if fn in self._opened:  # a function that calls itself
            place = self._opened.index(fn)
            self._outermost = min(self._outermost, place)
            return "recursion", len(self._opened) - place
        inner = Reader((*self._opened, fn))  # no key depends on earlier keys
        found = fn.__code__, inner._each(parts, depth)
        self.arrays += inner.arrays
        self._kept += inner._kept
        self.of_users |= inner.of_users
        self._outermost = min(self._outermost, inner._outermost)
        if not inner.of_users and inner._outermost >= len(self._opened):
            Reader._known[fn] = found
        return found


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is bound later
        raise NoKey from None


def _is_library(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in LIBRARIES


def _is_of_a_library(x: Any) -> bool:
    """Whether an object is a global of a library, by its ``__module__`` and ``__qualname__``."""
    names = vars(x) if hasattr(x, "__dict__") else {}
    local = "<locals>" in names.get("__qualname__", "<locals>")
    return _is_library(names.get("__module__")) and not local


def _names(code: types.CodeType) -> Iterable[str]:
    """The names that a code object reads, with those of its inner functions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _values_of(fn: types.FunctionType, cells: list[Any]) -> list[Any]:
    """The values in the closure of a function and of the globals that it names.

    For a user's module, its members with the names in the code.
    """
    names = tuple(dict.fromkeys(_names(fn.__code__)))
    found = [part for cell in cells for part in _opened(cell, names)]
    if UNREADABLE.intersection(names):
        raise NoKey
    for name in names:
        if name in fn.__globals__:
            found += _opened(fn.__globals__[name], names)
        elif name in sys.modules and not _is_library(name):
            raise NoKey  # perhaps imported inside the function
    return found


def _opened(value: Any, names: tuple[str, ...], depth: int = 0) -> list[Any]:
    """A value; for a user's module also its members with these names."""
    if not isinstance(value, types.ModuleType) or _is_library(value.__name__) or depth > 3:
        return [value]
    inner = [getattr(value, name) for name in names if hasattr(value, name)]
    return [Same(value), *(part for x in inner for part in _opened(x, names, depth + 1))]
