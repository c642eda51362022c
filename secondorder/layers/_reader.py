"""Reader of a program (a jaxpr): every linear use of every leaf of its parameters.

One walk, outermost equation first. Leaves are followed as :class:`~._strided_views.View` through
rearrangements until an operation uses them: linearly (:mod:`~._uses`), or in another way, which
makes the whole leaf a fallback, with the reason.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import jax.numpy as jnp

from secondorder.layers import _axis_labels as labels
from secondorder.layers import _elementwise as arithmetic
from secondorder.layers import _strided_views as strides
from secondorder.layers import _uses as sites
from secondorder.layers._analysis import (
    CALLS,
    COMPLEX,
    MOVES,
    PIECES,
    SAME,
    WHY,
    Info,
    Reading,
    Scope,
)
from secondorder.layers._jaxpr import alive, beginnings, is_literal, opened, programs, scan_counts
from secondorder.layers._uses import Scan, Site

PRODUCTS = {
    "dot_general": sites.dense,
    "conv_general_dilated": sites.convolution,
    "gather": sites.embedding,
}


def read_program(closed: Any) -> Reading:
    """Read ``jax.make_jaxpr(model)(params)``; its inputs are the leaves."""
    reader = Reader()
    jaxpr, _ = opened(closed)
    infos, inputs = [], []
    for i, var in enumerate(jaxpr.invars):
        sound = jnp.issubdtype(var.aval.dtype, jnp.floating) and var.aval.size > 0
        infos.append(Info(strides.whole(("leaf", i), var.aval.shape) if sound else None))
        inputs.append(labels.fresh(var.aval.shape))
        if not sound:
            what = f"is of {var.aval.dtype}, not a real number" if var.aval.size else "is empty"
            reader.reading.broken[i] = f"it {what}"
    found, axes = reader.walk(jaxpr, infos, inputs, (), ())
    rest = []
    for number, (info, axis) in enumerate(zip(found, axes, strict=True)):
        leaf = strides.whole_leaf(info.view)
        if leaf is not None:  # an output for a penalty has no axis of examples
            reader.reading.returned.setdefault(leaf, []).append(number)
            continue
        reader.reading.drop(info, "the model returns it among its outputs")
        rest += [(axis[0], jaxpr.outvars[number].aval.shape[0])] if axis else []
    leading, sizes = [axis for axis, _ in rest], {size for _, size in rest}
    if len(sizes) <= 1:
        for axis in leading[1:]:
            labels.unify(leading[0], axis)
        reader.reading.examples = leading[0] if leading else []
    return reader.reading


class Reader:
    """The walk, and the :class:`Reading` that it fills."""

    def __init__(self):
        self.reading = Reading({}, {}, {}, {}, {}, {}, {})

    def walk(self, jaxpr: Any, infos, axes, path, scans) -> tuple[list[Info], list[labels.Axes]]:
        """Read one program; infos and axes of its inputs give those of its outputs."""
        numbers = alive(jaxpr)
        used = [v for i in numbers for v in jaxpr.eqns[i].invars] + list(jaxpr.outvars)
        uses = collections.Counter(v for v in used if not is_literal(v))
        scope = Scope(path, scans, uses)
        for var in jaxpr.constvars:
            scope.infos[var], scope.axes[var] = Info(), labels.fresh(var.aval.shape)
        for var, info, axis in zip(jaxpr.invars, infos, axes, strict=True):
            scope.infos[var], scope.axes[var] = self.reading.followed(info, uses[var]), axis
        for number in numbers:
            self.equation(scope, jaxpr.eqns[number], (*path, number))
        outputs = [(scope.info(v), scope.axes_of(v)) for v in jaxpr.outvars]
        return [info for info, _ in outputs], [axis for _, axis in outputs]

    def equation(self, scope: Scope, eqn: Any, path: tuple[int, ...]) -> None:
        name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape if eqn.outvars else ()
        infos = [scope.info(v) for v in eqn.invars]
        axes = [scope.axes_of(v) for v in eqn.invars]
        inner = programs(eqn)
        if name == "optimization_barrier":
            results = infos, axes
        elif name == "scan":
            results = self.scan(scope, eqn, infos, axes, path)
        elif name in CALLS and len(inner) == 1:
            held = [
                self.reading.unscaled(info, "it is scaled before an inner function")
                for info in infos
            ]
            results = self.walk(opened(inner[0])[0], held, axes, path, scope.scans)
            results = (
                [self.reading.unscaled(i, "it is scaled in an inner function") for i in results[0]],
                results[1],
            )
        elif inner:
            results = self.opaque(eqn, inner, infos, axes, path, scope.scans)
        else:
            out = [
                labels.relate(name, eqn.params, axes, v.aval.shape)
                if axes
                else labels.fresh(v.aval.shape)
                for v in eqn.outvars
            ]
            if name in PIECES and infos[0].view is not None and infos[0].view.leaf is not None:
                results = self.pieces(eqn, infos, path), out
            else:
                used = self.use(scope, eqn, infos, [*axes, *out[:1]], path, shape)
                results = [used] + [Info()] * (len(out) - 1), out
        for var, info, axis in zip(eqn.outvars, *results, strict=True):
            scope.infos[var], scope.axes[var] = self.reading.followed(info, scope.uses[var]), axis

    # ------------------------------------------------------------------------- inner programs

    def opaque(self, eqn: Any, inner: list, infos, axes, path, scans) -> tuple[list, list]:
        """Infos and axes after an inner program that leaves are not followed into, only axes."""
        name = eqn.primitive.name
        for info in infos:
            self.reading.drop(info, WHY.get(name, f"it enters {name!r}, which is not looked into"))
        out = [labels.fresh(v.aval.shape) for v in eqn.outvars]
        for k, program in enumerate(inner):
            jaxpr, _ = opened(program)
            given = axes[-len(jaxpr.invars) :] if jaxpr.invars else []
            shapes = lambda values: [v.aval.shape for v in values]
            if len(given) != len(jaxpr.invars) or len(jaxpr.outvars) != len(out):
                continue
            if shapes(eqn.invars[-len(given) :] if given else []) != shapes(jaxpr.invars):
                continue
            if shapes(eqn.outvars) != shapes(jaxpr.outvars):
                continue
            _, found = self.walk(jaxpr, [Info()] * len(given), given, (*path, k), scans)
            for mine, theirs in zip(out, found, strict=True):
                for a, b in zip(mine, theirs, strict=True):
                    labels.unify(a, b)
        if name == "while":  # the carry has equal axes on entry and exit
            for mine, theirs in zip(out, axes[-len(out) :], strict=True):
                for a, b in zip(mine, theirs, strict=True):
                    labels.unify(a, b)
        return [Info()] * len(out), out

    def scan(self, scope: Scope, eqn: Any, infos, axes, path) -> tuple[list[Info], list]:
        """Infos and axes after a scan; stacked leaves are followed into it, carried ones not."""
        constants, carried = scan_counts(eqn)
        first = constants + carried
        jaxpr, _ = opened(programs(eqn)[0])
        over = [axis[0] for axis in axes[first:]]
        atoms = over[0] if over else labels.fresh((eqn.params["length"],))[0]
        for axis in over[1:]:
            labels.unify(atoms, axis)
        scan = Scan(path, eqn.params["length"], atoms)
        held = [self.reading.unscaled(i, "it is scaled before a scan") for i in infos]
        held = [i if i.view is None or i.view.leaf is not None else Info() for i in held]
        for k in range(constants, first):
            if jaxpr.outvars[k - constants] is not jaxpr.invars[k]:  # else it is a constant
                self.reading.drop(held[k], WHY["scan"])
                held[k] = Info()
        for k in range(first, len(held)):
            held[k] = self.sliced_off(held[k], path)
        inside = [*axes[:first], *(axis[1:] for axis in axes[first:])]
        found, out = self.walk(jaxpr, held, inside, path, (*scope.scans, scan))
        for mine, theirs in zip(axes[constants:first], out, strict=False):
            for a, b in zip(mine, theirs, strict=True):
                labels.unify(a, b)
        stacked = [(atoms, *axis) for axis in out[carried:]]
        returned = [self.put_back(info, scan) for info in found[carried:]]
        passed = [Info(info.view) for info in held[constants:first]]
        return [*passed, *returned], [*out[:carried], *stacked]

    def sliced_off(self, info: Info, scan: Any) -> Info:
        """The info of one slice of a scanned value: a leaf loses its first axis."""
        if info.view is None:
            return Info(constant=info.constant)
        axis, *rest = info.view.dims
        view = info.view.with_dims(rest)
        if strides.is_feature(axis):
            view = dataclasses.replace(view, scans=(*view.scans, (scan, axis)))
        elif not strides.is_broadcast(axis):
            self.reading.drop(info, sites.REPEATED)
            return Info()
        return Info(view)

    def put_back(self, info: Info, scan: Scan) -> Info:
        """The info of a leaf that a scan returns from every step, as some libraries do."""
        info = self.reading.unscaled(info, "it is scaled in a scan, which returns it")
        view = info.view
        if view is None or view.leaf is None:
            return Info()
        axes = dict(view.scans)
        axis = axes.pop(scan.identity, ((scan.length, 0),))
        return Info(dataclasses.replace(view, dims=(axis, *view.dims), scans=tuple(axes.items())))

    # ----------------------------------------------------------------------------- operations

    def use(self, scope, eqn, infos: list[Info], axes, path, shape) -> Info:
        """The info of an operation's result; records the use of a leaf among its operands."""
        name = eqn.primitive.name
        constant = all(info.constant for info in infos)
        gain = next((info.gain for info in infos if info.gain), None)
        leaves = [k for k, i in enumerate(infos) if i.view is not None and i.view.leaf is not None]
        if len(leaves) > 1:  # for a scaled leaf that meets another parameter, the scale is the use
            infos = [self.reading.settled(info) for info in infos]
            leaves = [k for k in leaves if infos[k].view is not None]
        if name in MOVES and infos[0].view is not None:
            return self.move(eqn, infos[0], path, gain)
        if not leaves and name in ("iota", "eq", *SAME):
            hot = arithmetic.one_hot(eqn, infos)
            if hot is not None:
                return hot
        if not leaves and (name in MOVES or name in ("mul", "div")):
            return Info(constant=constant, gain=gain)
        if not leaves and name in ("add", "add_any"):
            for info in infos:
                arithmetic.follow_rows(self.reading, info.view, eqn, axes[-1], path)
        inexact = any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in eqn.outvars)
        if not leaves or name == "stop_gradient" or not inexact:
            return Info(constant=constant)
        if any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in eqn.outvars):
            for k in leaves:
                self.reading.drop(infos[k], f"{COMPLEX} ({name!r})")
            return Info()
        place = leaves[0]
        view = infos[place].view
        assert view is not None
        result: Site | Info | str
        if name in WHY:
            result = WHY[name]
        elif len(leaves) > 1:
            result = "it is combined with another parameter, or with itself"
        elif name in PRODUCTS:
            result = PRODUCTS[name](path, eqn.params, view, place, axes, shape)
            other = infos[1 - place] if name == "dot_general" else Info()
            if isinstance(result, Site) and other.one_hot is not None:
                result = sites.looked_up(result, eqn.params, place, other.one_hot)
            if view.scaled == "array":
                result = "it is multiplied entry by entry before its product"
        elif name in ("mul", "add", "add_any", "sub", "neg", "div"):
            result = arithmetic.arithmetic(
                self.reading, scope, eqn, infos, place, axes[-1], path, shape
            )
        else:
            result = f"it enters {name!r}, which is not linear in it, or not known to be"
        if isinstance(result, Info):
            return result
        if isinstance(result, str):
            for k in leaves:
                view = infos[k].view
                assert view is not None and view.leaf is not None
                if name in PRODUCTS:
                    self.reading.broken.setdefault(view.leaf, result)
                else:
                    self.reading.drop(infos[k], result)
            return Info()
        return self.found(scope, eqn, result, infos, path, shape)

    def found(self, scope: Scope, eqn: Any, site: Site, infos, path, shape) -> Info:
        """Record a site; the info of its output serves to find its bias or shift."""
        out = eqn.outvars[0].aval
        site = dataclasses.replace(site, shape=tuple(shape), dtype=out.dtype)
        site = sites.within(site, scope.scans)
        self.reading.sites[path] = site
        if site.kind == "scale":
            return Info(gain=path)
        if site.kind == "shift":
            return Info()
        return Info(strides.whole(("site", path), shape))

    def move(self, eqn: Any, info: Info, path, gain) -> Info:
        """The info of a view after a rearrangement."""
        view, out = info.view, eqn.outvars[0].aval
        assert view is not None
        name, params = eqn.primitive.name, eqn.params
        if name == "transpose":
            moved = view.with_dims(view.dims[i] for i in params["permutation"])
        elif name == "broadcast_in_dim":
            moved = strides.broadcast(view, out.shape, params["broadcast_dimensions"])
        elif name in SAME:
            if not jnp.issubdtype(out.dtype, jnp.floating):
                if jnp.issubdtype(out.dtype, jnp.complexfloating):
                    self.reading.drop(info, COMPLEX)
                return Info()
            moved = view
        else:
            order = params.get("dimensions") if name == "reshape" else None
            source = view if order is None else view.with_dims(view.dims[i] for i in order)
            moved = strides.reshaped(source, out.shape)
        if moved is None:
            self.reading.drop(info, "a reshape cuts across its axes")
            return Info()
        if view.scaled:
            self.reading.scaling[path] = 0
        return Info(moved, gain=gain)

    def pieces(self, eqn: Any, infos: list[Info], path) -> list[Info]:
        """The infos of the slices of a leaf, if the slices are equal pieces."""
        view, shapes = infos[0].view, [v.aval.shape for v in eqn.outvars]
        assert view is not None
        starts = beginnings(eqn)
        if starts is None or view.scaled == "array":
            found = [None]
        else:
            pairs = zip(starts, shapes, strict=True)
            found = [strides.sliced(view, start, shape) for start, shape in pairs]
        if None in found:
            self.reading.drop(infos[0], WHY[eqn.primitive.name])
            return [Info()] * len(shapes)
        if view.scaled:
            self.reading.scaling[path] = 0
        return [Info(v) for v in found]
