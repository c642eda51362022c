"""The missing derivative mode of a model that JAX differentiates in one mode only.

=================  =============================  ==============================================
a model with       has                            the other mode is
=================  =============================  ==============================================
``custom_vjp``     ``Jᵀ u``, such as an adjoint   ``J v``: the derivative of ``u ↦ Jᵀ u`` in
                   solver                         reverse mode, or from rows of ``J``
a loop of          ``J v``                        ``Jᵀ u``: from columns of ``J``, one pass for
unknown length                                    every parameter
=================  =============================  ==============================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators._dense import join, over_basis, ravel, unravel
from secondorder.tree import Params

REFUSED = (TypeError, ValueError, NotImplementedError)  # JAX's errors for a missing rule


def runs(product: Callable, v: Any) -> bool:
    """Whether a linear map can be evaluated; the map of a ``custom_vjp`` has a transpose only.

    JAX raises for it under ``vmap``; otherwise only when it compiles.
    """
    if not jax.tree.leaves(v):
        return True
    try:
        jax.eval_shape(jax.vmap(product), jax.tree.map(lambda x: jnp.asarray(x)[None], v))
    except TypeError:
        return False
    except NotImplementedError:  # a callback without a rule for vmap
        return True
    return True


def transposes(pull: Callable, u: Any) -> bool:
    """Whether every operation in a transpose has a rule."""
    try:
        jax.eval_shape(pull, u)
    except REFUSED:
        return False
    return True


def derivable(fn: Callable, params: Params, *rest: Any) -> Callable:
    """``fn`` with derivatives in both modes.

    Args:
      fn: ``(params, *rest) ↦`` real arrays.
      rest: further differentiable arguments.

    Raises:
      TypeError: neither mode exists.
    """
    found: list[bool] = []

    def look(params: Params, *rest: Any) -> Any:
        # Integer outputs, such as labels, have no derivative and need none.
        real = lambda p: [z for z in jax.tree.leaves(fn(p, *rest)) if tree.is_real(z)]
        outputs, product = linearized(real, params)
        pull = jax.linear_transpose(product, params)
        found.extend((runs(product, params), transposes(pull, outputs)))
        return outputs

    jax.eval_shape(look, params, *rest)
    forward, reverse = found
    if forward and reverse:
        return fn
    if not forward and not reverse:
        raise TypeError(
            f"{fn!r} can be differentiated neither forward nor backward. A custom_vjp within a "
            "loop of unknown length is such a function: give one rule to the whole instead."
        )
    return _given_reverse(fn) if forward else _given_forward(fn)


def linearized(fn: Callable, params: Params) -> tuple[Any, Callable]:
    """``jax.linearize``, with a clear error for a function without derivatives.

    Raises:
      TypeError: a function without derivatives, such as a bare callback.
    """
    try:
        return jax.linearize(fn, params)
    except REFUSED as error:
        jax.eval_shape(fn, params)  # raises the function's own error first
        raise TypeError(
            "The function has no derivative with respect to the parameters. Give what JAX cannot "
            f"differentiate a rule, by jax.custom_jvp or jax.custom_vjp. JAX' message: {error}"
        ) from error


def _given_reverse(fn: Callable) -> Callable:
    """A function with forward mode, and reverse mode from the columns of its Jacobian."""

    @jax.custom_jvp
    def both(params: Params, *rest: Any) -> Any:
        return fn(params, *rest)

    def rule(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        params, rest = primals[0], primals[1:]
        outputs, product = jax.linearize(lambda p: fn(p, *rest), params)
        change = tree.zeros_like(outputs)
        if _moves(tangents[0]):
            columns, along = over_basis(product, params), ravel(_dense(params, tangents[0]))
            change = jax.tree.map(lambda c, z: _times(along, c).astype(z.dtype), columns, outputs)
        if _moves(tangents[1:]):
            along = _dense(rest, tangents[1:])
            change = tree.add(change, jax.jvp(lambda *x: fn(params, *x), rest, along)[1])
        return outputs, change

    both.defjvp(rule, symbolic_zeros=True)
    return both


def _given_forward(fn: Callable) -> Callable:
    """A function with reverse mode, and forward mode from the derivative of its reverse mode."""

    @jax.custom_jvp
    def both(*inputs: Any) -> Any:
        return fn(*inputs)

    def rule(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        moved = [i for i, t in enumerate(tangents) if _moves(t)]

        def of_moved(*some: Any) -> Any:
            inputs = list(primals)
            for i, x in zip(moved, some, strict=True):
                inputs[i] = x
            return fn(*inputs)

        some = tuple(primals[i] for i in moved)
        along = tuple(_dense(primals[i], tangents[i]) for i in moved)
        outputs, pull = jax.vjp(of_moved, *some)
        return outputs, _forward(pull, outputs, along)

    both.defjvp(rule, symbolic_zeros=True)
    return both


def _forward(pull: Callable, outputs: Any, along: Any) -> Any:
    """``J v`` from ``u ↦ Jᵀ u``: its derivative in reverse mode, or from the rows of ``J``."""
    if tree.size(outputs) > 1:
        try:
            _, twice = jax.vjp(pull, tree.zeros_like(outputs))
            return twice(along)[0]
        except REFUSED:
            pass  # a rule that JAX cannot trace, or one with forward mode only
    rows = join(over_basis(pull, outputs), 1)
    return tree.cast(unravel(_times(rows, ravel(along)), outputs), outputs)


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.tensordot(a, b, 1, precision=jax.lax.Precision.HIGHEST)


def _is_zero(x: Any) -> bool:
    return isinstance(x, jax.custom_derivatives.SymbolicZero)


def _moves(tangents: Any) -> bool:
    """Whether any tangent may be nonzero."""
    return not all(map(_is_zero, jax.tree.leaves(tangents, is_leaf=_is_zero)))


def _dense(x: Any, tangents: Any) -> Any:
    """The tangents with symbolic zeros replaced by arrays."""
    fill = lambda x, t: jnp.zeros(x.shape, x.dtype) if _is_zero(t) else t
    return jax.tree.map(fill, x, tangents, is_leaf=_is_zero)
