"""Squares in the eigenbases of the Grams along the axes: SOAP."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from secondorder import settings
from secondorder.curvature._axis_grams import measured, new_bases, started
from secondorder.curvature._structures import Averages, Frame, Moments, Structure, basis_drift
from secondorder.operators._axes import Axes
from secondorder.operators._base import Operator
from secondorder.operators._kronecker import KroneckerEigen
from secondorder.tree import Params


@settings.checked()
def axis_basis(
    axes: Axes | None = None, *, recount: bool = False, current_gradient: bool = False
) -> Structure:
    """A diagonal in the eigenbasis of the Grams: ``(⊗Qᵢ) diag(√E[v'∘v']) (⊗Qᵢ)ᵀ``, ``v' = ⊗Qᵢᵀ v``.

    The squares are averaged in the basis, at every sample. The basis comes from ``eigh`` of the
    Grams at first, and from one step of orthogonal iteration at each later refresh. A step uses the
    basis before its own gradient, since a basis from this gradient would fit it too well. Leaves
    without Grams keep their coordinates as the basis, as in RMSProp.

    Args:
      axes: rule for the Grams of a leaf.
      recount: True to count the squares of the first sample, in its own basis. False to start the
        squares at the second sample; the first step then has neither basis nor squares.
      current_gradient: True for steps and squares in the basis that includes the present sample,
        where it is refreshed at this step.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.gradient(), so.curvature.axis_basis(), decay=0.9)

    Source: Vyas et al. (2024), algorithms 3 and 4.
    """
    axes = Axes() if axes is None else axes

    def operator(like: Params, averages: Averages, bases: Frame) -> Operator:
        return KroneckerEigen(axes.blocks(like), bases, tuple(map(squared_roots, averages)))

    return Structure(
        started(axes, lambda block: True),
        measured(axes, lambda block: True),
        operator,
        new_bases(axes),
        basis_drift,
        behind=not current_gradient,
        recount="always" if current_gradient else "first" if recount else "never",
        join=None if recount else later_squares,
    )


def later_squares(averages: Averages, later: Averages) -> Averages:
    """The averages, with squares that start at the second sample: the first has no basis yet."""
    pairs = zip(averages, later, strict=True)
    return tuple(mean._replace(squares=less.squares) for mean, less in pairs)


def squared_roots(mean: Moments) -> jax.Array:
    """``√E[v'∘v']``; entries at the rounding level of their block are set to its largest entry.

    A rotated gradient has rounding errors in place of zeros. Division by their size would give
    full steps in random directions.
    """
    squares = mean.positive_squares
    roots = jnp.sqrt(squares)
    if all(factor is None for factor in mean.factors):
        return roots
    axes = tuple(range(1, roots.ndim))
    size = jnp.sqrt(jnp.mean(squares, axes, keepdims=True))
    level = float(jnp.finfo(roots.dtype).eps) ** 0.5 * size
    return jnp.where(roots > level, roots, jnp.max(roots, axes, keepdims=True))
