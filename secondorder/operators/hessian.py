"""The Hessian: all second derivatives of a scalar function, as products."""

from __future__ import annotations

from collections.abc import Callable

import jax

from secondorder import checks, tree
from secondorder.chunks import Chunked
from secondorder.operators.base import Function, Operator
from secondorder.operators.chunks import Chunks
from secondorder.tree import Params


def hvp(value_fn: Callable[[Params], jax.Array], params: Params, v: Params) -> Params:
    """The Hessian-vector product ``∇²f(params) v``, forward over reverse.

    One product costs about two gradients and never forms the matrix (Pearlmutter 1994).

    Args:
      value_fn: a scalar function of the parameters, or an Objective.
      params: where to differentiate.
      v: a tree shaped like ``params``.

    Raises:
      TypeError: integer or complex parameters.
      ValueError: ``v`` has another structure or other shapes than ``params``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> so.hvp(lambda p: p[0] ** 2 * p[1], jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0])).tolist()
      [6.0, 2.0]
    """
    tree.check_real(params)
    tree.check_match(v, params, "v", "params")
    slope = jax.grad(checks.number(value_fn, "hvp"))
    product = jax.jvp(slope, (params,), (tree.cast(v, params),))[1]
    return tree.cast(product, v)


def hessian(value_fn: Callable[[Params], jax.Array], params: Params) -> Operator:
    """``∇²f`` at ``params``, as an operator: linearised once, multiplied many times.

    Args:
      value_fn: a scalar function of the parameters, or an Objective.
      params: where to differentiate.

    Raises:
      TypeError: integer or complex parameters.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> H = so.hessian(lambda p: p[0] ** 2 * p[1], jnp.array([1.0, 3.0]))
      >>> H.mv(jnp.array([1.0, 0.0])).tolist()
      [6.0, 2.0]
    """
    tree.check_real(params)
    if isinstance(value_fn, Chunked):
        return Chunks(value_fn, params, lambda part, k: hessian(part, params))
    _, product = jax.linearize(jax.grad(checks.number(value_fn, "hessian")), params)
    return Function(product, params)
