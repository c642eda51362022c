"""The Jacobian of a vector function, dense or as products from both sides.

A column costs one forward pass (``J e``), a row one backward pass (``Jᵀ e``), so the shape decides
the mode: with n inputs and m outputs, ``forward`` for ``n ≤ 2m``, else ``reverse``. Rows of
independent examples, as of a ``vmap`` over data, are differentiated one example at a time. ``python
-m experiments bench jacobian`` prints the measured ratios.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import checks, layers, meshes, settings, tree
from secondorder.objectives._models import (
    BatchedModel,
    InParts,
    Known,
    Opened,
)
from secondorder.operators._dense import join, over_basis, ravel
from secondorder.operators._modes import (
    REFUSED,
    derivable,
    linearized,
    runs,
    transposes,
)
from secondorder.tree import Params

MODES = ("auto", "forward", "reverse")


PREFERRED = 2  # forward passes for a backward pass, of which XLA runs some batches very slowly
EXAMPLES = 16  # fewer rows or columns are not worth the search for examples


def cheaper_mode(inputs: int, outputs: int) -> str:
    """``forward`` (one pass per input) or ``reverse`` (one per output)."""
    return "forward" if inputs <= PREFERRED * outputs else "reverse"


def jacobian(
    fn: Callable[[Params], Any],
    params: Params,
    *,
    mode: str = "auto",
    chunk_size: int | None = None,
) -> Any:
    """The dense Jacobian ``∂ fn(params)ᵢ / ∂ paramsⱼ``.

    Args:
      fn: maps a pytree of arrays to a pytree of arrays. The model of a
        :func:`secondorder.per_example` objective is differentiated one example at a time, which
        costs a pass per output *component* instead of one per row.
      params: pytree of floating-point arrays.
      mode: ``"forward"`` (``jax.jacfwd``, n passes), ``"reverse"`` (``jax.jacrev``, m passes) or
        ``"auto"``: one example at a time if the outputs' leading axis is one of independent
        examples, else forward for ``n ≤ 2m`` and reverse beyond, or the only mode of ``fn``.
      chunk_size: number of columns or rows (for a ``per_example`` model: examples) to differentiate
        at a time, which bounds the memory of intermediate values; ``None`` for all. On a CPU, 8 at
        a time may be several times faster (second derivatives) or slower (wide layers).

    Returns:
      The tree of the outputs; each leaf is a tree like ``params`` of arrays of shape
      ``(*output.shape, *param.shape)``, as in ``jax.jacrev``; complex for complex outputs.

    Raises:
      ValueError: an unknown mode or a chunk size below 1.
      TypeError: integer or complex parameters.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.jacobian(lambda p: jnp.stack([p[0] * p[1], p[0]]), jnp.array([2.0, 3.0])).tolist()
      [[3.0, 2.0], [1.0, 0.0]]
    """
    if mode not in MODES:
        raise ValueError(f"jacobian got mode={mode!r}; pass one of {', '.join(map(repr, MODES))}.")
    chunk_size = settings.SIZE.or_none().of("jacobian", "chunk_size", chunk_size)
    tree.check_real(params)
    fn = fn if isinstance(fn, BatchedModel) else checks.arrays(fn, "jacobian", "function")
    if isinstance(fn, BatchedModel):

        def of_example(example):
            return jacobian(lambda p: fn.model(p, example), params, mode=mode)

        if chunk_size is None:
            return jax.vmap(of_example)(fn.examples)
        return jax.lax.map(of_example, fn.examples, batch_size=chunk_size)
    split = lambda p: tree.parts(fn(p))
    if mode == "auto":
        outputs = jax.eval_shape(split, params)
        one = functools.partial(jacobian, params=params)
        rows = _by_example(split, params, outputs, one) if chunk_size is None else None
        if rows is not None:
            return _whole(rows)
        mode = _suitable_mode(split, params)
    if chunk_size is not None:
        return _whole(_chunked(split, params, mode, chunk_size))
    try:
        return _whole((jax.jacfwd if mode == "forward" else jax.jacrev)(split)(params))
    except NotImplementedError:  # a callback without a vmap rule
        return _whole(_chunked(split, params, mode, 1))


def _by_example(fn: Callable, params: Params, outputs: Any, one: Callable) -> Any | None:
    """``one(model of an example)`` of all independent examples, in the tree of the outputs.

    ``None`` for few rows or columns, and where no independent examples are found.
    """
    if min(tree.size(params), tree.size(outputs)) < EXAMPLES:
        return None
    # A cotangent of the parameters has their precision, a tangent that of the outputs.
    if jnp.finfo(tree.dtype(params)).eps > jnp.finfo(tree.dtype(outputs)).eps:
        return None
    pieces = layers.examples_of(fn, params)
    if not pieces:
        return None

    def rows(piece: layers.Piece) -> list[Any]:
        return jax.vmap(lambda example: one(lambda p: piece.model(p, example)))(piece.examples)

    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *map(rows, pieces))
    return jax.tree.unflatten(jax.tree.structure(outputs), joined)


def _suitable_mode(fn: Callable, params: Params) -> str:
    """The cheaper mode, or the other one if ``fn`` lacks it."""
    outputs, product = linearized(fn, params)
    mode = cheaper_mode(tree.size(params), tree.size(outputs))
    if mode == "forward" and not runs(product, params):
        return "reverse"
    if mode == "reverse" and not transposes(jax.linear_transpose(product, params), outputs):
        return "forward"
    return mode


def _whole(jacobian: Any) -> Any:
    """The Jacobian of complex outputs, from the Jacobians of their parts."""
    is_parts = lambda x: isinstance(x, tree.Parts)

    def join(z: Any) -> Any:
        return jax.tree.map(jax.lax.complex, z.real, z.imag) if is_parts(z) else z

    return jax.tree.map(join, jacobian, is_leaf=is_parts)


def _chunked(fn: Callable, params: Params, mode: str, chunk_size: int) -> Any:
    at = linearize(fn, params)
    if mode == "reverse":  # rows: (m, *param.shape) in each leaf of params
        rows = over_basis(at.mvt, at.outputs, chunk_size)
        return jax.tree.map(
            lambda out, start: jax.tree.map(
                lambda r: r[start : start + out.size].reshape(*out.shape, *r.shape[1:]), rows
            ),
            at.outputs,
            _offsets(at.outputs),
        )
    columns = over_basis(at.mv, params, chunk_size)  # (n, *output.shape) in each leaf

    def split(column):
        moved = jnp.moveaxis(column, 0, -1)
        return jax.tree.map(
            lambda p, start: moved[..., start : start + jnp.size(p)].reshape(
                *moved.shape[:-1], *jnp.shape(p)
            ),
            params,
            _offsets(params),
        )

    return jax.tree.map(split, columns)


def _offsets(like: Any) -> Any:
    """The offset of each leaf in the joined vector."""
    leaves, structure = jax.tree.flatten(like)
    starts = [tree.size(leaves[:i]) for i in range(len(leaves))]
    return jax.tree.unflatten(structure, starts)


@dataclasses.dataclass(frozen=True, eq=False)
class Jacobian:
    """The Jacobian of a function at a point, linearised once: ``mv(v) = J v``, ``mvt(u) = Jᵀ u``.

    Attributes:
      fn, params: the function and the point.
      outputs: ``fn(params)``; complex outputs as their parts.
      mv: ``v`` shaped like ``params`` ↦ ``J v`` shaped like the outputs.
      pull: ``u`` shaped like the outputs ↦ ``(Jᵀ u,)``. It is built together with ``mv``: built
        inside a loop or a branch, it would leak tracers.
      known: ``J`` in the form of :meth:`dense`, if it is already computed.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> J = so.operators.linearize(lambda p: p**2, jnp.array([1.0, 3.0]))
      >>> J.mv(jnp.ones(2)).tolist(), J.mvt(jnp.array([1.0, 0.0])).tolist()
      ([2.0, 6.0], [2.0, 0.0])
    """

    fn: Callable[[Params], Any]
    params: Params
    outputs: Any
    mv: Callable[[Params], Any]
    pull: Callable[[Any], tuple[Params]]
    known: Any = None

    def mvt(self, u: Any) -> Params:
        """``Jᵀ u``, in the dtype of the parameters."""
        (product,) = self.pull(tree.cast(u, self.outputs))
        return product

    def bends(self, order: int) -> bool:
        """Whether the outputs have ``order`` derivatives along a line."""

        def along(v: Params) -> Any:
            return self.derivative_along(*[v] * (order - 1))

        try:  # under vmap, where JAX raises at once for a missing rule
            jax.eval_shape(jax.vmap(along), jax.tree.map(lambda x: x[None], self.params))
        except REFUSED:
            return False
        return True

    def second_derivative(self, v: Params) -> Any:
        """``d²/dt² fn(params + t v)`` at t = 0, shaped like the outputs: two forward passes."""
        along = tree.cast(v, self.params)
        slope = lambda p: jax.jvp(self.fn, (p,), (along,))[1]
        return jax.jvp(slope, (self.params,), (along,))[1]

    def derivative_along(self, *path: Params) -> Any:
        """The ``(k+1)``-th derivative of the outputs along a path with k terms, at t = 0.

        The path is ``params + t x₁ + ½ t² x₂ + ⅙ t³ x₃ + ...``; each order is a forward pass.
        """
        if len(path) == 1:
            return self.second_derivative(*path)
        terms = [tree.cast(x, self.params) for x in path]

        def at(t: jax.Array) -> Any:
            point, factor = self.params, jnp.ones_like(t)
            for order, x in enumerate(terms, 1):
                factor = factor * t / order
                point = jax.tree.map(lambda p, x, f=factor: p + f.astype(p.dtype) * x, point, x)
            return self.fn(point)

        def slope(fn: Callable) -> Callable:
            return lambda t: jax.jvp(fn, (t,), (jnp.ones_like(t),))[1]

        for _ in range(len(terms) + 1):
            at = slope(at)
        return at(jnp.zeros((), tree.dtype(self.params)))

    @property
    def mode(self) -> str:
        """The cheaper mode for the dense Jacobian: ``forward`` or ``reverse``."""
        return cheaper_mode(*self._counts)

    @property
    def passes(self) -> int:
        """Number of passes for the dense Jacobian: its columns, or the rows of one example."""
        return min(self._counts)

    @property
    def _counts(self) -> tuple[int, int]:
        """Numbers of inputs and outputs; outputs of one example for a batched model."""
        inputs, outputs = tree.size(self.params), tree.size(self.outputs)
        if isinstance(self.fn, BatchedModel):
            outputs //= max(jax.tree.leaves(self.fn.examples)[0].shape[0], 1)
        return inputs, outputs

    def dense(self) -> Any:
        """``J`` as a tree like the outputs of arrays ``(*output.shape, n)``, at least float32."""
        if self.known is not None:
            return self.known
        if isinstance(self.fn, BatchedModel):
            fn, params = self.fn, self.params
            one = lambda example: linearize(lambda p: fn.model(p, example), params).dense()
            return jax.vmap(one)(fn.examples)
        one = lambda model: linearize(model, self.params).dense()
        apart = _by_example(self.fn, self.params, self.outputs, one)
        if apart is not None:
            return apart
        if self.mode == "forward":
            columns = over_basis(self.mv, self.params)
            return tree.accumulator(jax.tree.map(lambda c: jnp.moveaxis(c, 0, -1), columns))
        rows = join(over_basis(self.mvt, self.outputs), 1)
        return jax.tree.map(
            lambda out, start: rows[start : start + out.size].reshape(*out.shape, -1),
            self.outputs,
            _offsets(self.outputs),
        )


def linearize(fn: Callable[[Params], Any], params: Params) -> Jacobian:
    """The :class:`Jacobian` of ``fn`` at ``params``: one forward pass now, products later.

    XLA hoists a linearisation out of a jitted loop, but not out of a scan over layers or a loop on
    the host, so the function is linearised once, here. If ``fn`` has derivatives in one mode only,
    the other mode is derived from it (``operators/_modes.py``).

    Raises:
      TypeError: integer or complex parameters, or a function without derivatives.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> J = so.operators.linearize(lambda p: p**2, jnp.array([1.0, 2.0]))
      >>> J.mv(jnp.ones(2)).tolist()
      [2.0, 4.0]
    """
    tree.check_real(params)
    if isinstance(fn, Known):
        if fn.is_at(params):
            return _tabulated(fn)
        fn = fn.model
    fn = fn if isinstance(fn, InParts | Opened | BatchedModel) else InParts(fn)
    at = _linearized(fn, params)
    seen = isinstance(fn.model if isinstance(fn, BatchedModel) else fn, Opened)
    if seen or (runs(at.mv, params) and transposes(at.pull, at.outputs)):
        return at
    return _linearized(both_modes(fn, params), params)


def both_modes(model: Callable, params: Params) -> Callable:
    """``model`` with derivatives in both modes; independent examples stay independent."""
    if not isinstance(model, BatchedModel):
        return derivable(model, params)
    first = meshes.first_row(model.examples)
    return dataclasses.replace(model, model=derivable(model.model, params, first))


def _linearized(fn: Callable, params: Params) -> Jacobian:
    outputs, mv = linearized(checks.arrays(fn, "A Jacobian"), params)
    return Jacobian(fn, params, outputs, mv, jax.linear_transpose(mv, params))


def _tabulated(fn: Known) -> Jacobian:
    """The Jacobian of a model with known columns: its products need no differentiation."""
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def mv(v: Params) -> Any:
        flat = ravel(v)
        image = lambda c, z: meshes.placed_like(product(c, flat).astype(z.dtype), z)
        return jax.tree.map(image, fn.columns, fn.outputs)

    pull = jax.linear_transpose(mv, fn.params)
    return Jacobian(fn.model, fn.params, fn.outputs, mv, pull, fn.columns)
