"""The dense Jacobian of a user's function, as trees in trees."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import checks, settings, tree
from secondorder.losses import Outputs
from secondorder.objectives._models import BatchedModel
from secondorder.operators._dense import over_basis
from secondorder.operators._jacobian import linearize
from secondorder.operators._modes import linearized, runs, transposes
from secondorder.operators._passes import by_example, by_leaf, cheaper_mode, offsets
from secondorder.tree import Params

MODES = ("auto", "forward", "reverse")


def jacobian(
    fn: Callable[[Params], Outputs],
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
    if isinstance(fn, BatchedModel):

        def of_example(example):
            return jacobian(lambda p: fn.model(p, example), params, mode=mode)

        if chunk_size is None:
            return jax.vmap(of_example)(fn.examples)
        return jax.lax.map(of_example, fn.examples, batch_size=chunk_size)
    checked = checks.arrays(fn, "jacobian", "function")
    split = lambda p: tree.parts(checked(p))
    if mode == "auto":
        outputs = jax.eval_shape(split, params)
        one = functools.partial(jacobian, params=params)
        rows = by_example(split, params, outputs, one) if chunk_size is None else None
        if rows is not None:
            return _whole(rows)
        mode = _suitable_mode(split, params)
    if chunk_size is not None:
        return _whole(_chunked(split, params, mode, chunk_size))
    try:
        return _whole((jax.jacfwd if mode == "forward" else jax.jacrev)(split)(params))
    except NotImplementedError:  # a callback without a vmap rule
        return _whole(_chunked(split, params, mode, 1))


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
        return by_leaf(rows, at.outputs)
    columns = over_basis(at.mv, params, chunk_size)  # (n, *output.shape) in each leaf

    def split(column):
        moved = jnp.moveaxis(column, 0, -1)
        return jax.tree.map(
            lambda p, start: moved[..., start : start + jnp.size(p)].reshape(
                *moved.shape[:-1], *jnp.shape(p)
            ),
            params,
            offsets(params),
        )

    return jax.tree.map(split, columns)
