"""Warnings that advise: each once in a process, with cause, cure and page of the documentation."""

from __future__ import annotations

import inspect
import threading
import warnings

WITHIN = {"secondorder", "jax", "optax"}

_given: set[str] = set()
_lock = threading.Lock()


class AdviceWarning(UserWarning):
    """Warning: a call works, but not as well as it could.

    Each kind is given once in a process, with its cause, its cure and the page of the
    documentation; ignore them by ``warnings.simplefilter("ignore", so.AdviceWarning)``. What
    depends on the values within a compiled step is in :func:`secondorder.advice`.

    Example:
      >>> import warnings, jax.numpy as jnp, secondorder as so
      >>> with warnings.catch_warnings():
      ...     warnings.simplefilter("ignore", so.AdviceWarning)
      ...     solution = so.minimize(lambda p: jnp.sum(p**2), jnp.ones(2, jnp.float32), tol=1e-10)
    """


def page(name: str) -> str:
    """The sentence that names a page of the documentation."""
    return f"See explain/{name}.html of the documentation."


def advise(kind: str, message: str, at: str) -> None:
    """Warn once in a process for each kind.

    Args:
      kind: what the warning is about, together with the function or model.
      at: name of the page.
    """
    with _lock:
        known = kind in _given
        _given.add(kind)
    if not known:
        warnings.warn(f"{message} {page(at)}", AdviceWarning, stacklevel=frames_within() + 1)


def frames_within() -> int:
    """The stack level of the user's line: above the frames of this library and of JAX."""
    level, frame = 0, inspect.currentframe()
    frame = frame and frame.f_back
    while frame is not None and frame.f_globals["__name__"].partition(".")[0] in WITHIN:
        level, frame = level + 1, frame.f_back
    return level
