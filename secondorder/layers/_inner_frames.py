"""Operations with a program inside: calls, loops, functions with a rule of their own."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from secondorder.layers._frames import Frame, Inner, Kinds, Run
from secondorder.layers._jaxpr import bind, is_literal, opened, scan_counts
from secondorder.layers._slices import Part, Together

ORDERS = 3  # derivatives of a function with a rule of its own, which may contain the function
CALLS = ("closed_call", "core_call", "remat", "checkpoint", "remat2", "jit", "pjit")


class _Inlined(Inner):
    """The program of a call."""

    def plan_input(self, place: int, part: Part | None) -> None:
        self.around.plan(self.eqn.invars[place], part)

    def input(self, run: Run, place: int, part: Part | None) -> Any:
        return self.around.value(run, self.eqn.invars[place], part)


class _Mapped(Inner):
    """The body of a scan that carries nothing, as of ``lax.map``: its steps are the examples."""

    def __init__(self, around: Frame, eqn: Any, part: Part):
        self.shared, _ = scan_counts(eqn)
        count = len(eqn.invars) - self.shared
        outer = [not is_literal(v) and v in around.dependent for v in eqn.invars[: self.shared]]
        super().__init__(around, eqn, part, [*outer, *[True] * count])
        self.apart = True

    def plan_output(self, place: int) -> None:
        self.plan(self.jaxpr.outvars[place], None)

    def output(self, run: Run, place: int) -> Any:
        return jnp.expand_dims(self.value(run, self.jaxpr.outvars[place], None), 0)

    def plan_input(self, place: int, part: Part | None) -> None:
        if place >= self.shared and part is not None:
            raise Together
        self.around.plan(self.eqn.invars[place], self.part if place >= self.shared else part)

    def input(self, run: Run, place: int, part: Part | None) -> Any:
        if place < self.shared:
            return self.around.value(run, self.eqn.invars[place], part)
        return jnp.squeeze(self.around.value(run, self.eqn.invars[place], self.part), 0)


class _Looped(Inner):
    """The body of a scan whose steps are not the examples, as of an integration in time.

    Attributes:
      carried: the parts of the carried values that the outputs need, by their number; ``None`` for
        a whole value.
      wanted: the parts of the body's results, by their number.
    """

    def __init__(self, around: Frame, eqn: Any, part: Part):
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

    def input(self, run: Run, place: int, part: Part | None) -> Any:
        return run.params[place, part]

    def output(self, run: Run, place: int) -> Any:
        key = (self, None, self.part)
        if key not in run.known:
            run.known[key] = self._scanned(run)
        return run.known[key][place]

    def _scanned(self, run: Run) -> dict[int, Any]:
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
            inside = Run(shared | carry | slices, run.data)
            found = {
                k: self.value(inside, self.jaxpr.outvars[k], w) for k, w in self.wanted.items()
            }
            after = {key: found[key[0] - self.shared] for key in carry}
            return after, {k: x for k, x in found.items() if k >= self.count}

        length, reverse = self.eqn.params["length"], self.eqn.params["reverse"]
        end, stacked = jax.lax.scan(step, start, sequences, length=length, reverse=reverse)
        return {place - self.shared: x for (place, _), x in end.items()} | stacked


class _WithRule(Inner):
    """The program of a function with a rule of its own for derivatives, as ``jax.nn.relu``.

    The rule is itself a program of all examples, from which that of one example is derived.
    """

    def __init__(self, around: Frame, eqn: Any, part: Part):
        super().__init__(around, eqn, part, [True] * len(eqn.invars))
        self.asked: list[tuple[int, Part | None]] = []
        self.rules: dict[int, _Rule] = {}

    def plan_input(self, place: int, part: Part | None) -> None:
        self.asked.append((place, part))
        self.around.plan(self.eqn.invars[place], part)

    def input(self, run: Run, place: int, part: Part | None) -> Any:
        return run.params[self.asked.index((place, part))]

    def plan_output(self, place: int) -> None:
        super().plan_output(place)
        if place not in self.rules and self.order < ORDERS:
            self.rules[place] = _Rule(self, place)

    def output(self, run: Run, place: int) -> Any:
        inner = self.jaxpr.outvars[place]

        @jax.custom_jvp
        def of(*given: Any) -> Any:
            return self.value(Run(given, run.data), inner, self.part)

        @of.defjvp
        def _(given, tangents):
            along = Run([*given, *tangents], run.data)
            return of(*given), self.rules[place].slope(along)

        return of(*(self.around.value(run, self.eqn.invars[j], part) for j, part in self.asked))


class _Rule(Frame):
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

    def slope(self, run: Run) -> Any:
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

    def input(self, run: Run, place: int, part: Part | None) -> Any:
        return run.params[self._place(place, part)]


def _of_scan(around: Frame, eqn: Any, part: Part) -> Inner:
    is_mapped = part.axis == 0 and not scan_counts(eqn)[1]
    return (_Mapped if is_mapped else _Looped)(around, eqn, part)


KINDS: Kinds = dict.fromkeys(CALLS, _Inlined) | {
    "scan": _of_scan,
    "custom_jvp_call": _WithRule,
}
