"""The program of one example, derived from a program of independent examples.

A function such as ``jax.vmap(residual)(x)`` is one program of all examples, in which cotangents of
single rows are dense. Each row of its outputs is followed back through the program to the parts of
the data that it is made of; the operations on these parts are the program of one example. Where an
operation mixes examples there is none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from secondorder.layers._jaxpr import bind, is_literal, opened, programs, scan_counts
from secondorder.layers._slices import Cut, Part, Together, depends, is_along, needed, within
from secondorder.tree import Params, size

MOST = 8  # pieces of concatenated outputs
ORDERS = 3  # derivatives of a function with a rule of its own, which may contain the function
SHARED = 4  # limit of what all examples share, as a multiple of the parameters
INLINED = ("closed_call", "core_call", "remat", "checkpoint", "remat2", "jit", "pjit")

Key = tuple[Any, Any, Part | None]


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of the outputs' leading axis.

    Attributes:
      model: ``(params, example) ↦`` the outputs of one example, a list of leaves.
      examples: arrays with the examples along their first axis.
    """

    model: Callable[[Params, Any], list[jax.Array]]
    examples: list[jax.Array]


def examples_of(fn: Callable[[Params], Any], params: Params) -> list[Piece] | None:
    """Pieces that make up the outputs along their leading axis, or ``None``.

    ``None`` where the outputs have no common leading axis, an operation mixes the examples, or the
    examples share more than :data:`SHARED` times the parameters, which would be differentiated
    again for each example.

    Args:
      fn: ``params ↦`` a tree of arrays, closing over its data.
      params: arrays.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from secondorder.layers import examples_of
      >>> x, w = jnp.arange(6.0).reshape(3, 2), jnp.ones(2)
      >>> (piece,) = examples_of(lambda w: jnp.tanh(x @ w), w)
      >>> [e.shape for e in piece.examples]
      [(3, 2), (3,)]
    """
    leaves, structure = jax.tree.flatten(params)
    flat = lambda *xs: jax.tree.leaves(fn(jax.tree.unflatten(structure, xs)))
    jaxpr, constants = opened(jax.make_jaxpr(flat)(*leaves))
    lengths = {v.aval.shape[:1] for v in jaxpr.outvars}
    if jaxpr.effects or len(lengths) != 1 or () in lengths or not size(params):
        return None
    ((length,),) = lengths
    parts = [Part(0, 0, length)] if length else []
    found: list[Piece] = []
    while parts:
        part = parts.pop(0)
        frame = _Frame(jaxpr, [True] * len(leaves), budget=SHARED * size(params))
        frame.constants = dict(zip(jaxpr.constvars, constants, strict=True))
        try:
            for v in jaxpr.outvars:
                frame.plan(v, part)
        except Together:
            return None
        except Cut as cut:
            ends = [*sorted(set(cut.places)), part.length]
            starts = [0, *ends[:-1]]
            pairs = zip(starts, ends, strict=True)
            parts = [Part(0, part.start + a, b - a) for a, b in pairs] + parts
            if len(parts) + len(found) > MOST:
                return None
            continue
        found.append(frame.piece(part))
    return found


class _Frame:
    """A program, whose inputs are parameters or come from the program around it.

    Attributes:
      jaxpr: the program.
      constants: the values of its constants.
      dependent: the variables that depend on parameters (or, in a loop, on the step).
      budget: how many numbers all examples may still share; of the outermost program.
      apart: whether its values are those of one example.
      order: how many derivatives of functions with a rule of their own it is inside.
      found: parts of the data, in the order of the examples' arrays; of the outermost program.
    """

    def __init__(
        self, jaxpr: Any, inputs: list[bool], around: _Frame | None = None, budget: float = 0
    ):
        self.jaxpr, self.constants, self.budget = jaxpr, {}, budget
        self.apart = around is not None and around.apart
        self.order = 0 if around is None else around.order
        self.dependent = depends(jaxpr, inputs)
        self.makers = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
        self.top = self if around is None else around.top
        self.found: dict[Key, jax.Array] = {}
        self.seen: dict[Key, None] = {}  # in the order of the search
        self.inner: dict[Key, _Inner] = {}
        self.wholes: dict[Any, Any] = {}

    # ------------------------------------------------------------ inputs, by the kind of the frame

    def plan_input(self, place: int, part: Part | None) -> None:
        if part is not None:  # a row of the outputs is a row of the parameters
            raise Together

    def input(self, run: _Run, place: int, part: Part | None) -> Any:
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

    def _entered(self, eqn: Any, part: Part) -> _Inner | None:
        """The frame of an operation with a program inside."""
        name, key = eqn.primitive.name, (self, eqn.outvars[0], part)
        kinds = {"scan": _Looped, "custom_jvp_call": _WithRule} | dict.fromkeys(INLINED, _Inlined)
        if name not in kinds:
            return None
        if key not in self.inner:
            is_mapped = name == "scan" and part.axis == 0 and not scan_counts(eqn)[1]
            kind = _Mapped if is_mapped else kinds[name]
            self.inner[key] = kind(self, eqn, part)
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

    def value(self, run: _Run, atom: Any, part: Part | None) -> Any:
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

    def _make(self, run: _Run, eqn: Any, atom: Any, part: Part | None) -> None:
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

    def piece(self, part: Part) -> Piece:
        """The planned piece."""
        keys = list(self.found)

        def model(params: Params, example: list[jax.Array]) -> list[jax.Array]:
            given = dict(zip(keys, example, strict=False))
            run = _Run(jax.tree.leaves(params), given)
            return [jnp.squeeze(self.value(run, v, part), 0) for v in self.jaxpr.outvars]

        # The numbers give vmap an axis where the rows need no data.
        numbers = jnp.arange(part.start, part.start + part.length, dtype=jnp.float32)
        return Piece(model, [*self.found.values(), numbers])


@dataclasses.dataclass
class _Run:
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


class _Inner(_Frame):
    """The program inside an operation of another frame."""

    def __init__(self, around: _Frame, eqn: Any, part: Part, inputs: list[bool] | None = None):
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

    def output(self, run: _Run, place: int) -> Any:
        return self.value(run, self.jaxpr.outvars[place], self.part)

    def outside(self, place: int) -> Any:
        return self.around.whole(self.eqn.invars[place])


class _Inlined(_Inner):
    """The program of a call."""

    def plan_input(self, place: int, part: Part | None) -> None:
        self.around.plan(self.eqn.invars[place], part)

    def input(self, run: _Run, place: int, part: Part | None) -> Any:
        return self.around.value(run, self.eqn.invars[place], part)


class _Mapped(_Inner):
    """The body of a scan that carries nothing, as of ``lax.map``: its steps are the examples."""

    def __init__(self, around: _Frame, eqn: Any, part: Part):
        self.shared, _ = scan_counts(eqn)
        count = len(eqn.invars) - self.shared
        outer = [not is_literal(v) and v in around.dependent for v in eqn.invars[: self.shared]]
        super().__init__(around, eqn, part, [*outer, *[True] * count])
        self.apart = True

    def plan_output(self, place: int) -> None:
        self.plan(self.jaxpr.outvars[place], None)

    def output(self, run: _Run, place: int) -> Any:
        return jnp.expand_dims(self.value(run, self.jaxpr.outvars[place], None), 0)

    def plan_input(self, place: int, part: Part | None) -> None:
        if place >= self.shared and part is not None:
            raise Together
        self.around.plan(self.eqn.invars[place], self.part if place >= self.shared else part)

    def input(self, run: _Run, place: int, part: Part | None) -> Any:
        if place < self.shared:
            return self.around.value(run, self.eqn.invars[place], part)
        return jnp.squeeze(self.around.value(run, self.eqn.invars[place], self.part), 0)


class _Looped(_Inner):
    """The body of a scan whose steps are not the examples, as of an integration in time.

    Attributes:
      carried: the parts of the carried values that the outputs need, by their number; ``None`` for
        a whole value.
      wanted: the parts of the body's results, by their number.
    """

    def __init__(self, around: _Frame, eqn: Any, part: Part):
        self.shared, self.count = scan_counts(eqn)
        outer = [not is_literal(v) and v in around.dependent for v in eqn.invars[: self.shared]]
        rest = len(eqn.invars) - self.shared
        super().__init__(around, eqn, part, [*outer, *[True] * rest])
        self.carried: dict[int, Part | None] = {}
        self.wanted: dict[int, Part | None] = {}

    def _want(self, place: int, part: Part | None) -> None:
        if place not in self.wanted:
            self.wanted[place] = part
            self.plan(self.jaxpr.outvars[place], part)
        elif self.wanted[place] != part:
            raise Together

    def plan_output(self, place: int) -> None:
        stacked = place >= self.count  # with the steps along its first axis
        if stacked and self.part.axis == 0:
            raise Together
        self._want(place, self.part._replace(axis=self.part.axis - stacked))

    def plan_input(self, place: int, part: Part | None) -> None:
        number = place - self.shared
        if 0 <= number < self.count:
            if number not in self.carried:
                self.carried[number] = part
                self.around.plan(self.eqn.invars[place], part)
                self._want(number, part)
            elif self.carried[number] != part:
                raise Together
            return
        self.around.plan(self.eqn.invars[place], self._outer(place, part))

    def _outer(self, place: int, part: Part | None) -> Part | None:
        """The part of the operand from which an input of the body comes."""
        is_sequence = place >= self.shared + self.count
        return part._replace(axis=part.axis + 1) if is_sequence and part is not None else part

    def input(self, run: _Run, place: int, part: Part | None) -> Any:
        return run.params[place, part]

    def output(self, run: _Run, place: int) -> Any:
        key = (self, None, self.part)
        if key not in run.known:
            run.known[key] = self._scanned(run)
        return run.known[key][place]

    def _scanned(self, run: _Run) -> dict[int, Any]:
        """The wanted results."""
        inputs: dict[tuple[int, Part | None], Any] = {}
        for _, atom, part in self.seen:
            if atom in self.jaxpr.invars and atom in self.dependent:
                place = self.jaxpr.invars.index(atom)
                outer = self._outer(place, part)
                inputs[place, part] = self.around.value(run, self.eqn.invars[place], outer)
        first = self.shared + self.count
        shared, start, sequences = (
            {key: x for key, x in inputs.items() if low <= key[0] < high}
            for low, high in ((0, self.shared), (self.shared, first), (first, math.inf))
        )

        def step(carry: dict[Any, Any], slices: dict[Any, Any]) -> tuple[Any, Any]:
            inside = _Run(shared | carry | slices, run.data)
            found = {
                k: self.value(inside, self.jaxpr.outvars[k], w) for k, w in self.wanted.items()
            }
            after = {key: found[key[0] - self.shared] for key in carry}
            return after, {k: x for k, x in found.items() if k >= self.count}

        length, reverse = self.eqn.params["length"], self.eqn.params["reverse"]
        end, stacked = jax.lax.scan(step, start, sequences, length=length, reverse=reverse)
        return {place - self.shared: x for (place, _), x in end.items()} | stacked


class _WithRule(_Inner):
    """The program of a function with a rule of its own for derivatives, as ``jax.nn.relu``.

    The rule is itself a program of all examples, from which that of one example is derived.
    """

    def __init__(self, around: _Frame, eqn: Any, part: Part):
        super().__init__(around, eqn, part, [True] * len(eqn.invars))
        self.asked: list[tuple[int, Part | None]] = []
        self.rules: dict[int, _Rule] = {}

    def plan_input(self, place: int, part: Part | None) -> None:
        self.asked.append((place, part))
        self.around.plan(self.eqn.invars[place], part)

    def input(self, run: _Run, place: int, part: Part | None) -> Any:
        return run.params[self.asked.index((place, part))]

    def plan_output(self, place: int) -> None:
        super().plan_output(place)
        if place not in self.rules and self.order < ORDERS:
            self.rules[place] = _Rule(self, place)

    def output(self, run: _Run, place: int) -> Any:
        inner = self.jaxpr.outvars[place]

        @jax.custom_jvp
        def of(*given: Any) -> Any:
            return self.value(_Run(given, run.data), inner, self.part)

        @of.defjvp
        def _(given, tangents):
            along = _Run([*given, *tangents], run.data)
            return of(*given), self.rules[place].slope(along)

        return of(*(self.around.value(run, self.eqn.invars[j], part) for j, part in self.asked))


class _Rule(_Frame):
    """The derivative of one output of a function with a rule of its own."""

    def __init__(self, of: _WithRule, place: int):
        avals = [v.aval for v in of.eqn.invars]
        moving = [k for k, a in enumerate(avals) if jnp.issubdtype(a.dtype, jnp.floating)]

        def slope(primals: list[Any], tangents: list[Any]) -> Any:
            def some(*xs: Any) -> Any:
                filled = list(primals)
                for k, x in zip(moving, xs, strict=True):
                    filled[k] = x
                return bind(of.eqn, filled)[place]

            return jax.jvp(some, [primals[k] for k in moving], tangents)[1]

        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
        jaxpr, constants = opened(jax.make_jaxpr(slope)(shapes, [shapes[k] for k in moving]))
        self.of, self.moving = of, moving
        super().__init__(jaxpr, [True] * len(jaxpr.invars), of)
        self.constants = dict(zip(jaxpr.constvars, constants, strict=True))
        self.order += 1
        self.plan(jaxpr.outvars[0], of.part)

    def slope(self, run: _Run) -> Any:
        return self.value(run, self.jaxpr.outvars[0], self.of.part)

    def _place(self, place: int, part: Part | None) -> int:
        """The number of an input among the given primals and tangents."""
        count = len(self.of.eqn.invars)
        key = (place if place < count else self.moving[place - count], part)
        if key not in self.of.asked:
            raise Together
        found = self.of.asked.index(key)
        return found if place < count else len(self.of.asked) + found

    def plan_input(self, place: int, part: Part | None) -> None:
        self._place(place, part)

    def input(self, run: _Run, place: int, part: Part | None) -> Any:
        return run.params[self._place(place, part)]


def _rows(whole: Any, part: Part) -> jax.Array:
    """A part of the data, its axis first."""
    rows = jax.lax.slice_in_dim(whole, part.start, part.start + part.length, axis=part.axis)
    return jnp.moveaxis(rows, part.axis, 0)
