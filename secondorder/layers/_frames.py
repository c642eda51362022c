"""Programs that are followed back from a part of their outputs, and run for one example."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from secondorder.layers._jaxpr import bind, is_literal, opened, programs
from secondorder.layers._slices import Part, Together, depends, is_along, needed, within

Key = tuple[Any, Any, Part | None]
Kinds = Mapping[str, Callable[[Any, Any, Part], "Inner"]]


class Frame:
    """A program, whose inputs are parameters or come from the program around it.

    Attributes:
      jaxpr: the program.
      constants: the values of its constants.
      dependent: the variables that depend on parameters (or, in a loop, on the step).
      budget: how many numbers all examples may still share; of the outermost program.
      kinds: how an operation with a program inside is entered, by its name.
      apart: whether its values are those of one example.
      order: how many derivatives of functions with a rule of their own it is inside.
      found: parts of the data, in the order of the examples' arrays; of the outermost program.
    """

    def __init__(
        self,
        jaxpr: Any,
        inputs: list[bool],
        around: Frame | None = None,
        budget: float = 0,
        kinds: Kinds | None = None,
    ):
        self.jaxpr, self.constants, self.budget = jaxpr, {}, budget
        self.kinds: Kinds = (kinds or {}) if around is None else around.kinds
        self.apart = around is not None and around.apart
        self.order = 0 if around is None else around.order
        self.dependent = depends(jaxpr, inputs)
        self.makers = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
        self.top = self if around is None else around.top
        self.found: dict[Key, jax.Array] = {}
        self.seen: dict[Key, None] = {}  # in the order of the search
        self.inner: dict[Key, Inner] = {}
        self.wholes: dict[Any, Any] = {}

    # ------------------------------------------------------------ inputs, by the kind of the frame

    def plan_input(self, place: int, part: Part | None) -> None:
        if part is not None:  # a row of the outputs is a row of the parameters
            raise Together

    def input(self, run: Run, place: int, part: Part | None) -> Any:
        del part
        return run.params[place]

    def outside(self, place: int) -> Any:
        """An input that depends on no parameter."""
        raise Together

    # --------------------------------------------------------------------------------------- plan

    def plan(self, atom: Any, part: Part | None) -> None:
        """Find the parts of the data that a part of a value is made of."""
        key = (self, atom, part)
        if is_literal(atom) or key in self.seen:
            return
        self.seen[key] = None
        if atom not in self.dependent:
            # Computed here, outside of the transformations of the model.
            whole = self.whole(atom)
            if part is not None:
                if any(jax.typeof(whole).sharding.spec):  # explicit: vmap needs all data alike
                    raise Together
                self.top.found[key] = _rows(whole, part)
        elif atom in self.makers:
            self._plan_made(self.makers[atom], atom, part)
        else:
            self.plan_input(self.jaxpr.invars.index(atom), part)

    def _plan_made(self, eqn: Any, atom: Any, part: Part | None) -> None:
        if part is None:
            self._share(eqn)
            for v in eqn.invars:
                self.plan(v, None)
            return
        if eqn.params.get("sharding") is not None or eqn.params.get("out_sharding") is not None:
            raise Together
        if is_along(eqn, part):
            k, there = within(eqn, part)
            self.plan(eqn.invars[k], there)
            return
        inner = self._entered(eqn, part)
        if inner is not None:
            inner.plan_output(eqn.outvars.index(atom))
            return
        needs, _ = needed(eqn, part)
        for v, need in zip(eqn.invars, needs, strict=True):
            self.plan(v, need)

    def _share(self, eqn: Any) -> None:
        """Count what all examples share."""
        if self.apart:
            return
        self.top.budget -= sum(math.prod(v.aval.shape) for v in eqn.outvars)
        if self.top.budget < 0 or eqn.primitive.name in ("while", "scan"):
            raise Together

    def _entered(self, eqn: Any, part: Part) -> Inner | None:
        """The frame of an operation with a program inside."""
        name, key = eqn.primitive.name, (self, eqn.outvars[0], part)
        if name not in self.kinds:
            return None
        if key not in self.inner:
            self.inner[key] = self.kinds[name](self, eqn, part)
        return self.inner[key]

    # ------------------------------------------------------------------------------------- values

    def whole(self, atom: Any) -> Any:
        """A value that depends on no parameter."""
        if is_literal(atom):
            return atom.val
        if atom not in self.wholes:
            if atom in self.constants:
                known = self.constants[atom]
                # NumPy's float64, where the program expects float32.
                is_foreign = isinstance(known, np.ndarray)
                self.wholes[atom] = jnp.asarray(known, atom.aval.dtype) if is_foreign else known
            elif atom in self.makers:
                eqn = self.makers[atom]
                results = bind(eqn, [self.whole(v) for v in eqn.invars])
                self.wholes |= dict(zip(eqn.outvars, results, strict=True))
            else:
                self.wholes[atom] = self.outside(self.jaxpr.invars.index(atom))
        return self.wholes[atom]

    def value(self, run: Run, atom: Any, part: Part | None) -> Any:
        """A value (``None``), or its slice for one example, whose axis has length one."""
        if is_literal(atom):
            return atom.val
        if atom not in self.dependent and part is None:
            return self.whole(atom)
        key = (self, atom, part)
        if key not in run.known:
            if atom not in self.dependent:
                run.known[key] = run.example(key)
            elif atom in self.makers:
                self._make(run, self.makers[atom], atom, part)
            else:
                place = self.jaxpr.invars.index(atom)
                run.known[key] = self.input(run, place, part)
        return run.known[key]

    def _make(self, run: Run, eqn: Any, atom: Any, part: Part | None) -> None:
        if part is None:
            results = bind(eqn, [self.value(run, v, None) for v in eqn.invars])
        elif is_along(eqn, part):
            k, there = within(eqn, part)
            results = [self.value(run, eqn.invars[k], there)]
        elif (inner := self._entered(eqn, part)) is not None:
            place = eqn.outvars.index(atom)
            run.known[self, atom, part] = inner.output(run, place)
            return
        else:
            needs, changed = needed(eqn, part)
            pairs = zip(eqn.invars, needs, strict=True)
            results = bind(eqn, [self.value(run, v, need) for v, need in pairs], **changed)
        keys = [(self, v, part) for v in eqn.outvars]
        run.known |= dict(zip(keys, results, strict=True))


@dataclasses.dataclass
class Run:
    """One evaluation of the program of one example.

    Attributes:
      params: the leaves of the parameters, or what stands for inputs in another frame.
      data: slices of the data, without their axis, by key.
      known: values so far.
    """

    params: Any
    data: dict[Key, Any]
    known: dict[Key, Any] = dataclasses.field(default_factory=dict)

    def example(self, key: Key) -> Any:
        _, _, part = key
        assert part is not None
        return jnp.expand_dims(self.data[key], part.axis)


class Inner(Frame):
    """The program inside an operation of another frame."""

    def __init__(self, around: Frame, eqn: Any, part: Part, inputs: list[bool] | None = None):
        program, *others = programs(eqn)
        if others:
            raise Together
        jaxpr, constants = opened(program)
        self.around, self.eqn, self.part = around, eqn, part
        if inputs is None:
            inputs = [not is_literal(v) and v in around.dependent for v in eqn.invars]
        super().__init__(jaxpr, inputs, around)
        self.constants = dict(zip(jaxpr.constvars, constants, strict=True))

    def plan_output(self, place: int) -> None:
        self.plan(self.jaxpr.outvars[place], self.part)

    def output(self, run: Run, place: int) -> Any:
        return self.value(run, self.jaxpr.outvars[place], self.part)

    def outside(self, place: int) -> Any:
        return self.around.whole(self.eqn.invars[place])


def _rows(whole: Any, part: Part) -> jax.Array:
    """A part of the data, its axis first."""
    rows = jax.lax.slice_in_dim(whole, part.start, part.start + part.length, axis=part.axis)
    return jnp.moveaxis(rows, part.axis, 0)
