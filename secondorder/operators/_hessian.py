"""The Hessian of a scalar function, as products."""

from __future__ import annotations

from collections.abc import Callable

import jax

from secondorder import checks, tree
from secondorder.operators._base import Function, Operator
from secondorder.operators._chunks import over_parts
from secondorder.operators._modes import REFUSED, derivable, runs
from secondorder.tree import Params


def hvp(value_fn: Callable[[Params], jax.Array], params: Params, v: Params) -> Params:
    """The Hessian-vector product ``∇²f(params) v``, forward over reverse.

    One product costs about two gradients and never forms the matrix (Pearlmutter 1994).

    Args:
      value_fn: a scalar function of the parameters, or an Objective.
      params: the point.
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
    """The Hessian ``∇²f`` at ``params``, as an operator: linearised once for all products.

    Args:
      value_fn: a scalar function of the parameters, or an Objective.
      params: the point.

    Raises:
      TypeError: integer or complex parameters, or a function without second derivatives.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> H = so.hessian(lambda p: p[0] ** 2 * p[1], jnp.array([1.0, 3.0]))
      >>> H.mv(jnp.array([1.0, 0.0])).tolist()
      [6.0, 2.0]
    """
    tree.check_real(params)
    return over_parts(value_fn, params, _hessian)


def _hessian(value_fn: Callable, params: Params, key: jax.Array | None) -> Operator:
    del key
    return Function(_product(checks.number(value_fn, "hessian"), params), params)


def _product(value_fn: Callable, params: Params) -> Callable:
    """``v ↦ ∇²f v``, in any two modes that can differentiate the function twice."""
    try:
        try:
            _, product = jax.linearize(jax.grad(value_fn), params)
        except REFUSED:
            _, product = jax.linearize(jax.grad(derivable(value_fn, params)), params)
        if runs(product, params):
            return product
        pull = jax.linear_transpose(product, params)  # the Hessian is symmetric
        jax.eval_shape(pull, params)
        return lambda v: pull(v)[0]
    except REFUSED as error:
        jax.eval_shape(value_fn, params)  # raises the function's own error first
        raise TypeError(
            "A Hessian needs second derivatives, which value_fn does not have. For least squares "
            "take a Gauss-Newton method, such as secondorder.levenberg_marquardt, else one of "
            f"gradients alone, such as secondorder.lbfgs. JAX' message: {error}"
        ) from error
