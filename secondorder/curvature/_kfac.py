"""The structures of K-FAC, damped inverses of Kronecker factors, and of EKFAC, their eigenbases.

Source: Martens and Grosse (2015); Grosse and Martens (2016) for convolutions; Eschenhagen et al.
(2023) for expand and reduce; George et al. (2018) for EKFAC.
"""

from __future__ import annotations

import jax

from secondorder.curvature import _moments as moments
from secondorder.curvature._layer_averages import LayerAverages
from secondorder.curvature._structures import (
    Averages,
    Frame,
    Moments,
    Now,
    Structure,
    basis_drift,
    farthest,
    sound,
)
from secondorder.operators import _kronecker as kr
from secondorder.operators._axes import Leaf
from secondorder.operators._kronecker import Factors, Kronecker, KroneckerEigen
from secondorder.tree import Params, Scalar


def damped_inverses(layers: LayerAverages) -> Structure:
    """The structure of K-FAC: inverses of the factors, with the λ of their refresh."""

    def factors(like: Params, averages: Averages) -> list[Factors]:
        """The factors of each block; with inputs alone, a leaf outside all layers has none."""
        own = lambda b: isinstance(b, Leaf) and not layers.inputs_only
        pairs = zip(layers.blocks(like), averages, strict=True)
        return [moments.scaled(m.factors) if own(b) else m.factors for b, m in pairs]

    def shift(own: Factors, mean: Moments, damping: Scalar) -> Scalar:
        """λ of a block; of inputs alone, in the units of their Gram."""
        if layers.inputs_only and own[0] is not None:
            damping = damping * kr.mean_trace(own[0])
        return mean.with_returned(damping)

    def operator(like: Params, averages: Averages, frame: Frame) -> Kronecker:
        shifts = [m.with_returned(0.0) for m in averages]
        return Kronecker(layers.blocks(like), factors(like, averages), frame, shifts)

    def refresh(like: Params, averages: Averages, frame: Frame, now: Now) -> tuple[Averages, Frame]:
        parts = zip(factors(like, averages), averages, frame, strict=True)
        new = [(kr.inverses(f, shift(f, m, now.damping)), old) for f, m, old in parts]
        return averages, tuple(jax.tree.map(sound, *both) for both in new)

    def drift(like: Params, averages: Averages, frame: Frame, damping: Scalar) -> jax.Array:
        parts = zip(frame, factors(like, averages), averages, strict=True)
        errors = [kr.residuals(q, f, shift(f, m, damping)) for q, f, m in parts]
        return farthest([error for block in errors for error in block])

    return Structure(layers.init, layers.measure, operator, refresh, drift)


def eigenbases(layers: LayerAverages) -> Structure:
    """The structure of EKFAC: second moments in the eigenbases of the factors."""

    def operator(like: Params, averages: Averages, frame: Frame) -> KroneckerEigen:
        entries = [m.with_returned(m.positive_squares) for m in averages]
        return KroneckerEigen(layers.blocks(like), frame, entries)

    def refresh(like: Params, averages: Averages, frame: Frame, now: Now) -> tuple[Averages, Frame]:
        """New bases, with the second moments rotated into them."""
        means, bases = [], []
        for mean, old in zip(averages, frame, strict=True):
            new = tuple(map(moments.basis, mean.factors, old))
            bases.append(new)
            means.append(mean._replace(squares=moments.turned(mean.squares, old, new)))
        return tuple(means), tuple(bases)

    return Structure(layers.init, layers.measure, operator, refresh, basis_drift, recount="first")
