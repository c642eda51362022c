"""Structures of sampled curvature: what is averaged, and the operator of the averages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.operators import _eigenbases as eb
from secondorder.operators._base import Operator
from secondorder.operators._diagonal import PositiveDiagonal
from secondorder.operators._kronecker import Factors
from secondorder.tree import Params, Scalar


class Now(NamedTuple):
    """Arguments of a refresh: whether it is the first one, and the damping.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.curvature.Now(first=jnp.array(True), damping=jnp.array(0.1)).first.item()
      True
    """

    first: jax.Array
    damping: Scalar


class Structure(NamedTuple):
    """A summary of outer products.

    The *averages* are means over samples. The *frame* is expensive and computed from the averages
    at each refresh: inverse roots, or a basis of the averages.

    Attributes:
      init: ``params -> (averages, frame)``, zeros and identities.
      measure: ``(sample, averages, frame) ->`` the summary of one sample, shaped like the averages,
        which are those before it.
      operator: ``(like, averages, frame) -> Operator``, ``like`` shaped like the parameters.
      refresh: ``(like, averages, frame, Now) -> (averages, frame)``; ``None`` without a frame.
      drift: ``(like, averages, frame, damping) ->`` the relative distance of the averages from the
        frame; ``None`` without a measure of it.
      behind: whether the operator of a step uses the frame before the refresh of this step.
      recount: which samples are measured again in the frame of their own refresh: ``"never"``, the
        ``"first"``, or ``"always"``.
      join: ``(averages, averages with a count of one less) -> averages``, for a structure with
        averages that start at the second sample; ``None`` if all start at the first.

    Example:
      >>> import secondorder as so
      >>> isinstance(so.curvature.diagonal(), so.curvature.Structure)
      True
    """

    init: Callable[[Params], tuple[Any, Any]]
    measure: Callable[[Any, Any, Any], Any]
    operator: Callable[[Params, Any, Any], Operator]
    refresh: Callable[[Params, Any, Any, Now], tuple[Any, Any]] | None = None
    drift: Callable[[Params, Any, Any, Scalar], jax.Array] | None = None
    behind: bool = False
    recount: Literal["never", "first", "always"] = "never"
    join: Callable[[Any, Any], Any] | None = None


@settings.checked()
def diagonal(
    entries: Callable[[jax.Array], jax.Array] = jnp.abs,
    statistic: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> Structure:
    """The diagonal ``diag(entries(mean of statistic(v ∘ w)))``, leaf by leaf.

    Args:
      entries: an averaged leaf ↦ nonnegative entries.
      statistic: function of a sampled leaf, applied before the average.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> adam = so.running(so.curvature.gradient(), so.curvature.diagonal(jnp.sqrt), decay=0.999)
    """
    product = lambda v, w: statistic(v * w)
    return Structure(
        init=lambda params: (tree.accumulator(tree.zeros_like(params)), ()),
        measure=lambda sample, averages, frame: jax.tree.map(product, *sample),
        operator=lambda like, mean, frame: PositiveDiagonal(jax.tree.map(entries, mean)),
    )


class Moments(NamedTuple):
    """The averages of one block; those of all blocks are a tuple, in order.

    A tree shaped like the parameters would have tuples as leaves, and Flax NNX treats tuples as
    trees.

    Attributes:
      factors: ``v wᵀ`` along each axis with a factor, ``(N, b, b)``; of a layer ``A, G``.
      squares: ``v ∘ w`` in the basis of the block and in its shape; of a layer
        ``Σ E[(Q_Aᵀ x)² (Q_Gᵀ y)²]``, summed over examples (or positions): for one position per
        example, the second moments of the gradients. ``None`` if not stored.
      returned: the mean square of the sample at leaves that the model returns, one number for all
        directions; ``None`` if it returns none.
      values: the mean over samples of ``diag(Qᵀ F Q)``, F the factor of a sample and Q the basis
        at it, ``(N, b, 1)``; ``None`` if not stored. JAX gives a replicated output the sharding of
        an input of as many axes: of two, that would be the parameters' and not the memory's.
    """

    factors: Factors
    squares: jax.Array | None
    returned: jax.Array | None = None
    values: Factors | None = None

    @property
    def positive_squares(self) -> jax.Array:
        """The squares, where rounding makes none of them negative."""
        assert self.squares is not None
        return jnp.maximum(self.squares, 0)

    def with_returned(self, x: Any) -> Any:
        """``x``, a λ or eigenvalues, plus ``returned``, which the factors do not include."""
        return x if self.returned is None else x + self.returned


Averages = Sequence[Moments]
Frame = Sequence[Factors]


def sound(new: jax.Array, old: jax.Array) -> jax.Array:
    """``new`` if it is finite, else ``old``: a failed factorisation is not used."""
    return jnp.where(jnp.all(jnp.isfinite(new)), new, old)


def farthest(drifts: Sequence[jax.Array]) -> jax.Array:
    """The largest drift of a factor; 0 without factors."""
    peaks = [jnp.max(d).astype(jnp.float32) for d in drifts if d.size]
    return jnp.max(jnp.stack(peaks)) if peaks else jnp.zeros(())


def basis_drift(like: Params, averages: Averages, bases: Frame, damping: Scalar) -> jax.Array:
    """The largest off-diagonal part of a factor in its basis."""
    pairs = [
        (factor, q)
        for mean, own in zip(averages, bases, strict=True)
        for factor, q in zip(mean.factors, own, strict=True)
    ]
    whole = [(f, q) for f, q in pairs if f is not None and f.ndim == 3]
    return farthest([eb.off_diagonal(f, q) for f, q in whole])
