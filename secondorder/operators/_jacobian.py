"""The Jacobian of a vector function at a point, as products from both sides or dense."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import checks, meshes, tree
from secondorder.losses import Outputs
from secondorder.objectives._models import BatchedModel, InParts, Known, Opened
from secondorder.operators._dense import join, over_basis, ravel
from secondorder.operators._modes import REFUSED, derivable, linearized, runs, transposes
from secondorder.operators._passes import by_example, by_leaf, cheaper_mode
from secondorder.tree import Params


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

    fn: Callable[[Params], Outputs]
    params: Params
    outputs: Outputs
    mv: Callable[[Params], Outputs]
    pull: Callable[[Outputs], tuple[Params]]
    known: Any = None

    def mvt(self, u: Outputs) -> Params:
        """``Jᵀ u``, in the dtype of the parameters."""
        (product,) = self.pull(tree.cast(u, self.outputs))
        return product

    def bends(self, order: int) -> bool:
        """Whether the outputs have ``order`` derivatives along a line."""

        def along(v: Params) -> Outputs:
            return self.derivative_along(*[v] * (order - 1))

        try:  # under vmap, where JAX raises at once for a missing rule
            jax.eval_shape(jax.vmap(along), jax.tree.map(lambda x: x[None], self.params))
        except REFUSED:
            return False
        return True

    def second_derivative(self, v: Params) -> Outputs:
        """``d²/dt² fn(params + t v)`` at t = 0, shaped like the outputs: two forward passes."""
        along = tree.cast(v, self.params)
        slope = lambda p: jax.jvp(self.fn, (p,), (along,))[1]
        return jax.jvp(slope, (self.params,), (along,))[1]

    def derivative_along(self, *path: Params) -> Outputs:
        """The ``(k+1)``-th derivative of the outputs along a path with k terms, at t = 0.

        The path is ``params + t x₁ + ½ t² x₂ + ⅙ t³ x₃ + ...``; each order is a forward pass.
        """
        if len(path) == 1:
            return self.second_derivative(*path)
        terms = [tree.cast(x, self.params) for x in path]

        def at(t: jax.Array) -> Outputs:
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
        apart = by_example(self.fn, self.params, self.outputs, one)
        if apart is not None:
            return apart
        if self.mode == "forward":
            columns = over_basis(self.mv, self.params)
            return tree.accumulator(jax.tree.map(lambda c: jnp.moveaxis(c, 0, -1), columns))
        rows = join(over_basis(self.mvt, self.outputs), 1)
        return by_leaf(rows, self.outputs)


def linearize(fn: Callable[[Params], Outputs], params: Params) -> Jacobian:
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

    def mv(v: Params) -> Outputs:
        flat = ravel(v)
        image = lambda c, z: meshes.placed_like(product(c, flat).astype(z.dtype), z)
        return jax.tree.map(image, fn.columns, fn.outputs)

    pull = jax.linear_transpose(mv, fn.params)
    return Jacobian(fn.model, fn.params, fn.outputs, mv, pull, fn.columns)
