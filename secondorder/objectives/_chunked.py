"""Objective over a large batch, evaluated and differentiated chunk after chunk."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import meshes, settings, tree
from secondorder.objectives._base import AnyObjective, Result, objective_of
from secondorder.tree import Params, Real
from secondorder.tree._types import Count


@dataclasses.dataclass(frozen=True, eq=False)
class Chunked(AnyObjective):
    """``f(params) = Σₖ wₖ fₖ(params)`` over the chunks of a batch.

    ``wₖ`` is a chunk's share of the examples, or 1 where losses are sums. Value, derivatives and
    statistics are sums over the chunks, computed by :meth:`total`. The outputs never exist in one
    piece, so it has no ``loss`` and ``model``.

    Attributes:
      part: a chunk of the batch ↦ its objective.
      batch: pytree of arrays with one common leading axis.
      chunk_size: number of examples in a chunk; the last one has the rest.
      mean: whether losses are means over examples, else sums.
    """

    part: Callable[[Any], Callable[[Params], jax.Array]]
    batch: Any
    chunk_size: int
    mean: bool = True

    def __call__(self, params: Params) -> jax.Array:
        return self.total(lambda fn, k: fn(params))

    @property
    def examples(self) -> int:
        """The number of examples."""
        return jax.tree.leaves(self.batch)[0].shape[0]

    @property
    def whole(self) -> int:
        """The number of whole chunks."""
        return self.examples // self.chunk_size

    @property
    def left(self) -> int:
        """The number of examples in the chunk after them; 0 for none."""
        return self.examples % self.chunk_size

    @property
    def count(self) -> int:
        """The number of chunks."""
        return self.whole + (self.left > 0)

    def share(self, k: Count) -> Real:
        """The fraction of the examples in chunk k."""
        size = (
            jnp.where(k < self.whole, self.chunk_size, self.left) if self.left else self.chunk_size
        )
        return size / self.examples

    def weight(self, k: Count) -> Real:
        """The factor of chunk k."""
        return self.share(k) if self.mean else 1.0

    def chunk(self, k: Count) -> Any:
        """The k-th of the K whole chunks: every K-th example, starting at the k-th.

        A batch sharded over devices then has a share of every chunk on each, and no data move.
        """

        def cut(x: jax.Array) -> jax.Array:
            x = x[: self.examples - self.left] if self.left else x
            x = x.reshape(self.chunk_size, self.whole, *x.shape[1:])
            return jax.lax.dynamic_index_in_dim(x, k, axis=1, keepdims=False)

        return jax.tree.map(cut, self._shared())

    def rest(self) -> Any:
        """The chunk after the whole ones: the last examples."""
        return jax.tree.map(lambda x: x[self.examples - self.left :], self._shared())

    def _shared(self) -> Any:
        """The batch, on every device where a chunk cannot be spread evenly."""
        return meshes.rows_gathered(self.batch, math.gcd(self.chunk_size, self.left))

    def objective(self, chunk: Any) -> Callable[[Params], jax.Array]:
        """The objective of a chunk."""
        fn = self.part(chunk)
        averages = getattr(getattr(fn, "loss", None), "averages", None)
        if averages not in (None, self.mean):
            kind, right = ("mean over examples", True) if averages else ("sum", False)
            raise ValueError(
                f"chunked got mean={self.mean}, but the loss of its chunks is a {kind}: the whole "
                f"would not be what it is for the batch in one piece. Pass mean={right}."
            )
        return fn

    def before(self, change: Callable[[Params], Params]) -> Chunked:
        part = lambda chunk: objective_of(self.part(chunk)).before(change)
        return dataclasses.replace(self, part=part)

    def split(self, user: str) -> Any:
        raise TypeError(
            f"{user} needs all outputs at once, but value_fn is chunked. Pass the objective of the "
            "whole batch, or take a method that works by products, such as secondorder.newton_cg "
            "or secondorder.hessian_free."
        )

    def by_parts(self, one: Callable[[Any], Result], many: Callable[[Any], Result]) -> Result:
        del one
        return many(self)

    def first_part(self) -> AnyObjective:
        return objective_of(self.objective(self.chunk(0))).first_part()

    def total(self, fn: Callable[[Any, Any], Any], root: bool = False) -> Any:
        """``Σₖ wₖ fn(objective of chunk k, k)``, in at least float32.

        No value of a chunk is stored: a derivative of the sum computes it again.

        Args:
          root: ``√wₖ`` in place of ``wₖ``, for vectors whose outer products are summed.
        """

        of = lambda chunk, k: tree.accumulator(fn(self.objective(chunk), k))
        kept = functools.partial(jax.checkpoint, prevent_cse=False)  # a scan needs no barrier
        step = kept(lambda total, k: (tree.add(total, of(self.chunk(k), k)), None))
        factor = lambda k: self.weight(k) ** 0.5 if root else self.weight(k)
        numbers = jnp.arange(self.whole)
        shapes = jax.eval_shape(lambda k: of(self.chunk(k), k), numbers[0])
        total = jax.lax.scan(step, tree.zeros_like(shapes), numbers)[0]
        total = tree.scale(factor(0), total)
        if not self.left:
            return total
        rest = kept(lambda k: of(self.rest(), k))(jnp.asarray(self.whole))
        return tree.add(total, tree.scale(factor(self.whole), rest))


def chunked(
    objective_of: Callable[[Any], Callable[[Params], jax.Array]],
    batch: Any,
    chunk_size: int,
    *,
    mean: bool = True,
) -> Chunked:
    """The objective of a batch in chunks: ``f(params) = Σₖ wₖ objective_of(chunkₖ)(params)``.

    The same numbers as ``objective_of(batch)`` if examples are independent, in the memory of one
    chunk: value, gradient, Hessian and Gauss-Newton products, samples and layer statistics go
    through the chunks one after another. Nothing is stored between chunks, so a gradient costs a
    third more, and each product begins with a forward pass. Outputs also exist for one chunk at a
    time, which large vocabularies need. A chunk holds every K-th example; the remaining
    examples are a smaller chunk, weighed by its share. Random draws differ from those of the batch
    in one piece, with the same distribution.

    Methods on the rows of a Jacobian (``gauss_newton``, ``levenberg_marquardt``) refuse it; methods
    by products accept it, and ``solvers.direct()`` for few parameters.

    Args:
      objective_of: a chunk ↦ its objective by :func:`secondorder.compose` (or a plain function of
        the parameters, for Hessian methods).
      batch: pytree of arrays with one common leading axis, the examples, labels, keys and weights
        included.
      chunk_size: number of examples in a chunk. A divisor of all compiles one program for a chunk,
        any other number a second one, for the rest.
      mean: whether losses are means over examples, or sums, such as ``sum_of_squares``; for sums
        the objective is the sum over the chunks. A loss that divides by the sum of its weights has
        to divide by a number that is the same in all chunks.

    Raises:
      TypeError: an ``objective_of`` that is not a function.
      ValueError: a batch without one common leading axis or without examples, or a ``chunk_size``
        below 1; when called, a loss of the library that is not a mean (not a sum) as declared.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> batch = {"x": jnp.arange(4.0), "y": jnp.ones(4)}
      >>> objective_of = lambda b: so.compose(so.squared_error(b["y"]), lambda p: p * b["x"])
      >>> f = so.chunked(objective_of, batch, chunk_size=2)
      >>> p = jnp.array(2.0)
      >>> float(f(p)), float(objective_of(batch)(p))
      (4.5, 4.5)
      >>> float(so.ggnvp(f, p, jnp.array(1.0)))
      3.5
    """
    if not callable(objective_of):
        raise TypeError(f"chunked needs objective_of to be a function, but got {objective_of!r}.")
    batch = jax.tree.map(jnp.asarray, batch)
    shapes = [leaf.shape for leaf in jax.tree.leaves(batch)]
    if not shapes or any(not s or s[0] != shapes[0][0] for s in shapes):
        raise ValueError(
            "chunked needs a batch of arrays with one common leading axis (one entry per "
            f"example), but their shapes are {shapes}."
        )
    examples = shapes[0][0]
    if examples == 0:
        raise ValueError("chunked got a batch without examples.")
    size = settings.SIZE.of("chunked", "chunk_size", chunk_size)
    return Chunked(objective_of, batch, min(size, examples), mean)
