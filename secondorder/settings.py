"""Settings of methods and parts: one kind for each name, checked when a method is constructed.

    @settings.checked()
    def soap(learning_rate=3e-3, *, b1=0.95, …):

A name has the same meaning everywhere, so :data:`KINDS` is the only table; exceptions are arguments
of the decorator. A traced setting (under ``jit``, ``vmap``, ``optax.inject_hyperparams``) has a
shape and a dtype to check, but no value.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Factory = TypeVar("Factory", bound=Callable)
ROOMS = {"curvature", "losses", "solvers", "trust"}  # public names with the room as prefix


class Kind(NamedTuple):
    """The kind of a setting.

    Attributes:
      words: description of valid values, for the message.
      fits: test of the type of a value.
      within: test of the size of a number that is not traced.
      static: whether it determines shapes or branches, so that it cannot be traced.
    """

    words: str
    fits: Callable[[Any], bool]
    within: Callable[[Any], bool] = lambda x: True
    static: bool = False

    def or_none(self) -> Kind:
        """This kind, or ``None``."""
        return self._replace(
            fits=lambda x: x is None or self.fits(x), words=f"{self.words}, or None"
        )

    def of(self, user: str, name: str, value: Any) -> Any:
        """The value if it fits, else an error with a sentence."""
        if isinstance(value, _Default):
            return value.value
        known = not isinstance(value, Tracer)
        if not self.fits(value):
            error = TypeError
        elif known and _is_number(value) and not self.within(float(value)):
            error = ValueError
        elif self.static and not known:
            raise TypeError(
                f"{user} got a traced number as {name}, which decides shapes or branches. Pass "
                "a Python number; with optax.inject_hyperparams, name it in static_args."
            )
        else:
            return int(value) if self.static and _is_number(value) else value
        raise error(f"{user} got {name}={_shown(value)}; pass {self.words}.")


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", ())
    if shape:
        return f"an array of the shape {tuple(shape)}"
    text = value.__name__ if inspect.isroutine(value) else repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def _is_number(x: Any) -> bool:
    """Whether ``x`` is a real scalar and not a bool."""
    if isinstance(x, (bool, np.bool_)):
        return False
    if isinstance(x, (int, float)):
        return True
    known = isinstance(x, (np.number, np.ndarray, jax.Array)) and x.shape == ()
    return known and jnp.issubdtype(x.dtype, jnp.number) and not jnp.iscomplexobj(x)


def _is_integer(x: Any) -> bool:
    return _is_number(x) and jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.integer)


def _number(words: str, within: Callable[[Any], bool], schedule: bool = False) -> Kind:
    if schedule:
        return Kind(f"{words}, or a schedule", lambda x: _is_number(x) or _is_schedule(x), within)
    return Kind(words, _is_number, within)


def _count(words: str, least: float, static: bool = False) -> Kind:
    return Kind(words, _is_integer, lambda x: x >= least, static)


def _part(words: str, *attributes: str) -> Kind:
    """A kind for a record of functions, recognised by its fields.

    The rooms that define these records import this module, so their types are not available.
    """
    return Kind(
        words, lambda x: all(hasattr(x, name) for name in attributes) and not isinstance(x, type)
    )


def _is_schedule(x: Any) -> bool:
    return callable(x) and not isinstance(x, type)


def _is_mask(x: Any) -> bool:
    is_bool = lambda leaf: getattr(leaf, "dtype", type(leaf)) in (bool, np.dtype(bool))
    return callable(x) or all(map(is_bool, jax.tree.leaves(x)))


POSITIVE = _number("a positive number", lambda x: 0 < x < math.inf)
NOT_NEGATIVE = _number("a number that is not negative", lambda x: 0 <= x < math.inf)
DECAY = _number("a number from 0 to 1", lambda x: 0 <= x <= 1)
FRACTION = _number("a number between 0 and 1", lambda x: 0 < x < 1)
ABOVE_ONE = _number("a number above 1", lambda x: 1 < x < math.inf)
MOMENTUM = _number("a number from 0 to below 1", lambda x: 0 <= x < 1)
LENGTH = _number("a positive number, or infinity", lambda x: x > 0)
RATE = _number("a finite number that is not negative", lambda x: 0 <= x < math.inf, schedule=True)
SCALE = _number("a number that is not negative", lambda x: x >= 0, schedule=True)

COUNT = _count("a positive integer", 1)
COUNT_OR_NONE_YET = _count("an integer that is not negative", 0)
SIZE = _count("a positive integer", 1, static=True)
SEVERAL = _count("an integer of at least 2", 2, static=True)
SIZE_OR_ZERO = _count("an integer that is not negative", 0, static=True)
SEED = _count("an integer", -math.inf)
FLAG = Kind("True or False", lambda x: isinstance(x, (bool, np.bool_)), static=True)

FUNCTION = Kind("a function", callable, static=True)
MASK = Kind("a tree of bools like the parameters', or a function that returns one", _is_mask)
ANYTHING = Kind("anything", lambda x: True)

SOLVER = _part("a solver, such as secondorder.solvers.cg()", "init", "solve", "reads")
POLICY = _part("a policy, such as secondorder.trust.damping()", "init", "update", "gives")
CURVATURE = _part(
    "a curvature, such as secondorder.exact(secondorder.ggn)", "init", "update", "needs_value_fn"
)
ESTIMATOR = _part("an estimator, such as secondorder.curvature.fisher_sample()", "draw")
STRUCTURE = _part("a structure, such as secondorder.curvature.diagonal()", "measure", "operator")
AXES = _part("axes, such as secondorder.operators.Axes(block_size=128)", "block_size", "max_size")
TRANSFORMATION = _part("an Optax transformation, such as optax.scale_by_adam()", "init", "update")
PRECONDITIONER = Kind(
    "a preconditioner, such as secondorder.solvers.nystrom(50) or known_inverse()",
    lambda x: hasattr(x, "inverse") or callable(x),
)
CURVATURE_TOO = Kind(
    "a curvature with an inverse, such as secondorder.curvature.empirical_diagonal(), or a "
    "preconditioner, such as secondorder.solvers.nystrom(50)",
    lambda x: PRECONDITIONER.fits(x) or CURVATURE.fits(x),
)
REFRESH = Kind(
    f"{COUNT.words}, or secondorder.curvature.drift(0.1)",
    lambda x: _is_integer(x) or hasattr(x, "measure_every"),
    COUNT.within,
)


def unscheduled(kind: Kind) -> Kind:
    """The kind of a policy's first scalar, with a message about schedules."""
    reason = "what follows the outcome of steps has no schedule, but trust.fixed takes one"
    return kind._replace(words=f"{kind.words}; {reason}")


KINDS = {
    "acceleration": FLAG,
    "adapt": FUNCTION,
    "average": FUNCTION,
    "axes": AXES,
    "b1": MOMENTUM,
    "b2": DECAY,
    "backtrack": SIZE_OR_ZERO,
    "base": CURVATURE,
    "approximation": CURVATURE,
    "block_size": SIZE.or_none(),
    "burn_in": COUNT_OR_NONE_YET,
    "c": POSITIVE,
    "count": SEVERAL,
    "current_gradient": FLAG,
    "curvature": CURVATURE,
    "damping": RATE,
    "debias": FLAG,
    "decay": DECAY,
    "delta": POSITIVE,
    "direction": TRANSFORMATION,
    "eigen": FLAG,
    "entries": FUNCTION,
    "eps": NOT_NEGATIVE,
    "estimator": ESTIMATOR,
    "example": FUNCTION._replace(
        words="an objective, or a function of the parameters that gives one"
    ),
    "exponent": NOT_NEGATIVE,
    "forcing": POSITIVE,
    "gamma": POSITIVE,
    "graft": TRANSFORMATION.or_none(),
    "halvings": SIZE_OR_ZERO,
    "hessian_power": NOT_NEGATIVE,
    "initial": unscheduled(POSITIVE),
    "inputs_only": FLAG,
    "interpolate": FLAG,
    "iterates": SIZE_OR_ZERO,
    "layer_of": FUNCTION,
    "layers": FLAG,
    "lazy": FLAG,
    "learning_rate": RATE,
    "max_cg_steps": SIZE,
    "max_precond_dim": SIZE,
    "max_size": SIZE_OR_ZERO,
    "max_steps": SIZE,
    "maximum": LENGTH,
    "measure_every": COUNT,
    "memory": SIZE,
    "momentum": MOMENTUM,
    "mu": MOMENTUM,
    "onto": TRANSFORMATION,
    "operator": FUNCTION,
    "options": ANYTHING,
    "order": SIZE,
    "polish": SIZE_OR_ZERO,
    "preconditioner": PRECONDITIONER,
    "rank": SIZE,
    "ratio": ABOVE_ONE,
    "recount": FLAG,
    "reduce": FLAG,
    "refresh_every": REFRESH,
    "relative": FLAG,
    "sample_every": COUNT,
    "samples": SIZE,
    "scale": SCALE,
    "scaled": FLAG,
    "seed": SEED,
    "skip_first_step": FLAG,
    "solver": SOLVER,
    "squares": FLAG,
    "statistic": FUNCTION,
    "steps": SIZE_OR_ZERO,
    "stop": FUNCTION,
    "structure": STRUCTURE,
    "target": FRACTION,
    "tolerance": NOT_NEGATIVE,
    "trial_every": COUNT,
    "trust": ANYTHING,  # a method's ``policy_of`` checks it
    "warm_start": DECAY,
    "weight_decay": NOT_NEGATIVE,
    "weight_decay_mask": MASK,
}


def checked(**kinds: Kind) -> Callable[[Factory], Factory]:
    """Decorator of a factory of methods or parts that checks its settings.

    Args:
      kinds: kinds of settings that differ from :data:`KINDS`.

    Raises:
      KeyError: a parameter without a kind.
    """

    def of(factory: Factory) -> Factory:
        signature = inspect.signature(factory)
        room = factory.__module__.split(".")[1]
        user = f"{room}.{factory.__name__}" if room in ROOMS else factory.__name__
        rules = {}
        for name, parameter in signature.parameters.items():
            kind = kinds[name] if name in kinds else KINDS[name]
            rules[name] = kind.or_none() if parameter.default is None else kind

        @functools.wraps(factory)
        def made(*args: Any, **given: Any) -> Any:
            try:
                bound = signature.bind(*args, **given)
            except TypeError:
                return factory(*args, **given)  # Python's own sentence
            for name, value in bound.arguments.items():
                bound.arguments[name] = rules[name].of(user, name, value)
            return factory(*bound.args, **bound.kwargs)

        shown = [_untraced(p, rules[name]) for name, p in signature.parameters.items()]
        made.__dict__["__signature__"] = signature.replace(parameters=shown)
        return cast(Factory, made)

    return of


class _Default:
    """A default that ``optax.inject_hyperparams`` does not convert.

    It would convert a number to an array and a function to a schedule, but shapes depend on these.
    """

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def _untraced(parameter: inspect.Parameter, kind: Kind) -> inspect.Parameter:
    default = parameter.default
    plain = default is None or isinstance(default, bool)
    if default is parameter.empty or plain or not kind.static:
        return parameter
    return parameter.replace(default=_Default(default))
