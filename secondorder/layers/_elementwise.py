"""Elementwise uses of a parameter; detection of iota and one-hot."""

from __future__ import annotations

import dataclasses
from typing import Any

from secondorder.layers import _strided_views as strides
from secondorder.layers import _uses as sites
from secondorder.layers._analysis import Info, Reading, Scope
from secondorder.layers._strided_views import View
from secondorder.layers._uses import Site


def arithmetic(
    reading: Reading, scope: Scope, eqn, infos, place, out, path, shape
) -> Site | Info | str:
    """The use of a leaf in a sum or product with another value, or the reason there is none."""
    name = eqn.primitive.name
    view = infos[place].view
    assert view is not None
    if name == "div" and place == 1:
        return "something is divided by it"
    others = [k for k in range(len(infos)) if k != place]
    constant = all(infos[k].constant for k in others)
    scalar = all(eqn.invars[k].aval.size == 1 for k in others)
    aligned = strides.aligned(view, shape)
    alone = not any(strides.is_broadcast(axis) and axis for axis in aligned.dims)
    small = sum(map(bool, view.dims)) <= 1  # may also be a vector of activations
    if name == "neg":
        return scaled(reading, aligned, "scalar", place, path)
    if name in ("add", "add_any", "sub"):
        away = name == "sub" and place == 1
        if alone and constant:  # W + c, still the leaf; or c − W
            return scaled(reading, aligned, "scalar" if away else "", place, path)
        site = sites.elementwise(path, "shift", view, None, out, shape)
        if isinstance(site, str):
            return site
        join(reading, infos, place, name, path, shape)
        site = dataclasses.replace(site, how=place, negated=away)
        how = "scalar" if away else ""
    else:
        if alone and constant and scalar:  # c W
            return scaled(reading, aligned, "scalar", place, path)
        site = sites.elementwise(path, "scale", view, 1 - place, out, shape)
        if isinstance(site, str):
            return site
        site = dataclasses.replace(site, how=name)
        how = "scalar" if scalar else "array"
    if not alone or view.scaled or (small and site.kind == "shift"):
        return site
    # The use may come later: γ rsqrt(variance) meets the examples, W + W₀ a product. Otherwise this
    # multiplication is the use, as x ∘ γ for one example.
    site = dataclasses.replace(site, shape=shape, dtype=eqn.outvars[0].aval.dtype)
    info = scaled(reading, aligned, how, place, path)
    pending = sites.within(site, scope.scans)
    return Info(info.view and dataclasses.replace(info.view, pending=pending))


def scaled(reading: Reading, view: View, how: str, place: int, path) -> Info:
    """The info of a view after a multiplication, which is recorded (``how`` empty: none)."""
    if view.scaled or how:
        reading.scaling[path] = place
    how = "array" if "array" in (how, view.scaled) else how or view.scaled
    return Info(dataclasses.replace(view, scaled=how))


def join(reading: Reading, infos, place: int, name: str, path, shape) -> None:
    """Record the product whose bias a shift is, or the scale before it."""
    view, other = infos[place].view, infos[1 - place]
    if other.gain:
        reading.gains[path] = other.gain
    if other.view is None or name == "sub" or view.scaled:
        return
    product = reading.sites[other.view.source[1]]
    matched = sites.bias_of(product, other.view, view, shape)
    if matched is not None:
        reading.biases[path] = (product.path, matched)


def follow_rows(reading: Reading, view: View | None, eqn: Any, out, path) -> None:
    """Record where rows of a look-up are added to something."""
    site = reading.sites[view.source[1]] if view is not None else None
    if view is not None and site is not None and site.kind == "embedding":
        aval = eqn.outvars[0].aval
        later = sites.after(site, path, view, out, aval.shape, aval.dtype)
        if later is not None:
            reading.later[site.path] = later


def one_hot(eqn: Any, infos: list[Info]) -> Info | None:
    """The info of a one-hot array as ``jax.nn.one_hot`` makes it: labels compared to an iota."""
    name = eqn.primitive.name
    if name == "iota":
        return Info(constant=True, counts=eqn.params["dimension"])
    if name == "eq":
        for mine, other in ((0, 1), (1, 0)):
            axis, shape = infos[mine].counts, eqn.invars[other].aval.shape
            if axis is not None and (not shape or shape[axis] == 1):
                return Info(one_hot=axis)
        return None
    kept = infos[0]
    return kept if kept.counts is not None or kept.one_hot is not None else None
