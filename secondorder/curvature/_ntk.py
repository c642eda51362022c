"""The Gram of the samples from layer statistics: ``J Jᵀ`` without ``J``.

For output k of example n, a layer with inputs ``a`` and sensitivities ``g`` has the row
``Σₜ a_nt ⊗ g_nkt`` of the Jacobian. Its part of the Gram is

    (J Jᵀ)_(nk)(ml) = Σ_ts (a_nt · a_ms) (g_nkt · g_mls)            n, m examples; t, s positions

For T = 1 this is the elementwise product of two small matrices. With many positions
(convolutions) the rows of the layer may be smaller; the shapes decide which costs less.

Source: Goodfellow (2015) for the norms, n = m; Rochette, Manoel and Tramel (2019) for positions;
Novak, Sohl-Dickstein and Schoenholz (2022) for whole Grams and the choice between the two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from secondorder import layers, tree
from secondorder.curvature._base import Curvature
from secondorder.losses import Outputs
from secondorder.objectives._base import AnyObjective, objective_of
from secondorder.objectives._models import BatchedModel, Known
from secondorder.objectives._objective import Objective, restrict
from secondorder.operators._base import Operator
from secondorder.operators._block_diagonal import of_group
from secondorder.operators._dense import over_basis
from secondorder.operators._gauss_newton import KnownGram, ggn
from secondorder.operators._jacobian import linearize
from secondorder.tree import Params

_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def ntk() -> Curvature:
    """``JᵀMJ`` with the Gram of the samples ``SᵀJJᵀS`` from layer statistics, without J.

    For solvers in sample space, ``solvers.sample_space()``. With N examples of K outputs each, K
    backward passes record the inputs and sensitivities of every layer. The memory is ``(NK)²``
    numbers and these statistics, instead of the NK rows of J. Leaves outside all layers (see
    ``layer_table``) add their exact columns of J. With at most as many parameters as outputs, or a
    chunked objective, J is formed as with ``exact(ggn)``.

    It is faster if outputs are many fewer than parameters: for 256 examples and a network
    64-256-256-1 (float32, two cores) the Gram takes 4 ms instead of 640 and 2 MB instead of 170,
    and a whole step of natural gradient takes a third of the time.

    Raises:
      TypeError: at update, an objective that is not from ``per_example``, whose examples may not be
        independent.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x = jnp.linspace(-1.0, 1.0, 4)[:, None]
      >>> f = so.per_example(so.squared_error(x), lambda w, x: jnp.tanh(x @ w["a"]) @ w["b"], x)
      >>> w = {"a": jnp.ones((1, 9)), "b": jnp.ones((9, 1))}
      >>> tx = so.scale_by_curvature(
      ...     so.curvature.ntk(), so.solvers.sample_space(), so.trust.damping())
      >>> step, state = tx.update(jax.grad(f)(w), tx.init(w), w, value_fn=f)
      >>> so.diagnostics(state)["dimension"].item(), so.diagnostics(state)["jacobians"].item()
      (4, 0)

    Source: Novak, Sohl-Dickstein and Schoenholz (2022).
    """

    def update(grads, state, params, value_fn) -> tuple[Operator, tuple]:
        del grads
        return _ggn(value_fn, params), state

    return Curvature(lambda params: (), update, without_jacobian=True)


def _ggn(value_fn: Callable, params: Params) -> Operator:
    of_whole = lambda whole: _with_gram(whole, params)
    return objective_of(value_fn).by_parts(of_whole, lambda chunks: ggn(chunks, params))


def _with_gram(value_fn: AnyObjective, params: Params) -> Operator:
    objective = value_fn.split("ntk")
    model = objective.model
    op = ggn(objective, params)
    if isinstance(model, Known):  # J is already computed
        return op
    if not isinstance(model, BatchedModel):
        raise TypeError(
            "ntk needs to know the examples apart, but the model of value_fn is "
            f"{model!r}. Pass value_fn=secondorder.per_example(loss, model, examples), or use "
            "exact(ggn)."
        )
    return KnownGram(op.jacobian, op.middle, lambda: jacobian_gram(objective, params))


def jacobian_gram(objective: Objective, params: Params) -> jax.Array:
    """``J Jᵀ`` of the outputs of a ``per_example`` objective, ``(m, m)``, in their ravelled order.

    Args:
      objective: an objective from :func:`secondorder.per_example`.
      params: the point.
    """
    model = objective.model
    layout = layers.read(model, params)
    outputs, pull, _ = layers.instrumented(model, params, layout)
    one = jax.tree.map(lambda z: jax.ShapeDtypeStruct(z.shape[1:], z.dtype), outputs)
    each = lambda e: jax.tree.map(lambda x, z: jnp.broadcast_to(x, z.shape), e, outputs)
    statistics = over_basis(lambda e: pull(each(e))[1], one)  # leading axis: outputs
    count, components = jax.tree.leaves(outputs)[0].shape[0], tree.size(one)
    total = jnp.zeros((count * components,) * 2, tree.dtype(params))
    for block, uses in zip(layout.blocks, statistics, strict=True):
        if block.apart:
            total = total + _of_layer(block, uses)
    rest = [leaf for block in layout.blocks if not block.apart for leaf in block.leaves]
    if rest:
        columns = _columns(objective, params, rest)
        total = total + _einsum("ip,jp->ij", columns, columns)
    order = _ravelled(outputs)
    return total if order is None else total[order[:, None], order]


def _ravelled(outputs: Outputs) -> np.ndarray | None:
    """Index in the order (example, output) of each entry of the ravelled outputs."""
    leaves = jax.tree.leaves(outputs)
    if len(leaves) == 1:
        return None
    sizes = [leaf[0].size for leaf in leaves]
    index = np.arange(leaves[0].shape[0] * sum(sizes)).reshape(-1, sum(sizes))
    return np.concatenate([part.ravel() for part in np.split(index, np.cumsum(sizes)[:-1], 1)])


def _columns(objective: Objective, params: Params, leaves: Sequence[int]) -> jax.Array:
    """The Jacobian restricted to some leaves, ``(NK, size)``, in the order (example, output)."""
    some = of_group(params, tuple(leaves))
    held: Any = restrict(objective, params)
    columns = jax.tree.leaves(linearize(held.model, some).dense())
    flat = [c.reshape(c.shape[0], -1, c.shape[-1]) for c in columns]
    return jnp.concatenate(flat, axis=1).reshape(-1, flat[0].shape[-1])


class Positions(NamedTuple):
    """Inputs and sensitivities of a layer, for S independent maps and T positions.

    Attributes:
      inputs: ``(S, T, N, K or 1, a)``; for a look-up ``(S, T, N, 1)``, the indices of its rows.
      sensitivities: ``(S, T, N, K, b)``.
    """

    inputs: jax.Array
    sensitivities: jax.Array


def _positions(block: layers.Block, uses: Sequence[layers.Use]) -> Positions:
    """The uses of a block as positions, since a gradient is the sum over both."""
    # All outputs share the inputs. A use with the kernel transposed has its inputs in the place of
    # the sensitivities.
    several = any(use.transposed for use in uses)
    lookups = all(use.indices is not None for use in uses)
    order = lambda x: jnp.moveaxis(x, (0, 1, 2, 3), (3, 0, 2, 1))  # from (K, S, N, T, …)
    found = []
    for use in uses:
        if use.indices is None:
            assert use.inputs is not None
            inputs = use.inputs
        elif lookups:
            inputs = use.indices
        else:
            inputs = jax.nn.one_hot(use.indices, block.shape[1], dtype=use.sensitivities.dtype)
        found.append((inputs if several else inputs[:1], use.sensitivities))
    joined = [
        jnp.concatenate([order(x) for x in role], axis=1) for role in zip(*found, strict=True)
    ]
    return Positions(*joined)


def _of_layer(block: layers.Block, uses: Sequence[layers.Use]) -> jax.Array:
    """The contribution of one layer to ``J Jᵀ``."""
    at = _positions(block, uses)
    return _pairs(at) if pairs_are_cheaper(block, at) else _rows(at, block.shape[1])


def pairs_are_cheaper(block: layers.Block, at: Positions) -> bool:
    """Whether the Gram of a layer takes fewer operations by pairs of positions than by its rows."""
    s, t, n, k, b = at.sensitivities.shape
    a, wide = block.shape[1], at.inputs.shape[3]
    of_inputs = n**2 if at.inputs.ndim == 4 else a * (n * wide) ** 2
    by_pairs = s * t**2 * (of_inputs + b * (n * k) ** 2)
    return by_pairs <= s * a * b * (t * n * k + (n * k) ** 2)


def _pairs(at: Positions) -> jax.Array:
    """``Σ_s Σ_ts (a_nt · a_ms) (g_nkt · g_mls)``, one pair of positions after another."""
    s, t, n, k, _ = at.sensitivities.shape
    pairs = jnp.stack(jnp.meshgrid(*map(jnp.arange, (s, t, t)), indexing="ij"), -1).reshape(-1, 3)

    def gram(x: jax.Array, pair: jax.Array) -> jax.Array:
        one, other = x[pair[0], pair[1]], x[pair[0], pair[2]]
        if x.ndim == 4:  # indices of a look-up: unit vectors
            return (one[:, :, None, None] == other[None, None]).astype(at.sensitivities.dtype)
        return _einsum("nka,mla->nkml", one, other)

    def add(total: jax.Array, pair: jax.Array) -> tuple[jax.Array, None]:
        return total + gram(at.inputs, pair) * gram(at.sensitivities, pair), None

    total, _ = jax.lax.scan(add, jnp.zeros((n, k, n, k), at.sensitivities.dtype), pairs)
    return total.reshape(n * k, n * k)


def _rows(at: Positions, a: int) -> jax.Array:
    """The Gram of a layer from its rows of J."""
    s, _, n, k, b = at.sensitivities.shape
    inputs = at.inputs
    if inputs.ndim == 4:
        inputs = jax.nn.one_hot(inputs, a, dtype=at.sensitivities.dtype)
    wide = jnp.broadcast_to(inputs, (*inputs.shape[:3], k, a))
    rows = _einsum("stnka,stnkb->nksab", wide, at.sensitivities).reshape(n * k, s * a * b)
    return _einsum("ip,jp->ij", rows, rows)
