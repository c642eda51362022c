"""Conversion of operators to and from Lineax."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import lineax as lx

from secondorder.operators._base import Function, Operator
from secondorder.tree import Params


def to_lineax(
    operator: Operator, like: Params, tags: object | Iterable[object] = ()
) -> lx.AbstractLinearOperator:
    """``operator`` as a Lineax operator, tagged as symmetric.

    Args:
      operator: an operator, such as ``so.hessian(f, params)``.
      like: the parameters, or their shapes.
      tags: further Lineax tags. ``CG`` and ``Cholesky`` require
        ``lineax.positive_semidefinite_tag``, which is true for a Fisher matrix, for a Gauss-Newton
        matrix with a convex loss, and for a Hessian at a minimum. Such a matrix may still be
        singular, as with fewer examples than parameters: pass ``.damped(λ)`` to ``Cholesky``.

    Example:
      >>> import jax.numpy as jnp, lineax as lx, secondorder as so
      >>> from secondorder.interop.lineax import to_lineax
      >>> f, p = lambda p: jnp.sum(jnp.cosh(p)), jnp.zeros(2)
      >>> h = to_lineax(so.hessian(f, p), p, lx.positive_semidefinite_tag)
      >>> solver = lx.CG(rtol=1e-6, atol=1e-6)
      >>> lx.linear_solve(h, jnp.array([1.0, 2.0]), solver).value.tolist()
      [1.0, 2.0]
    """
    if isinstance(tags, Iterable) and not isinstance(tags, str):
        more = tuple(tags)
    else:
        more = (tags,)
    shapes = jax.eval_shape(lambda: like)
    return lx.FunctionLinearOperator(operator.mv, shapes, (lx.symmetric_tag, *more))


def from_lineax(operator: lx.AbstractLinearOperator) -> Operator:
    """An :class:`Operator` from a symmetric operator of Lineax, for ``so.dense`` or ``so.trace``.

    Raises:
      ValueError: an operator without Lineax's tag of symmetry.

    Example:
      >>> import jax, jax.numpy as jnp, lineax as lx, secondorder as so
      >>> from secondorder.interop.lineax import from_lineax
      >>> b = from_lineax(lx.DiagonalLinearOperator(jnp.array([1.0, 2.0])))
      >>> so.dense(3.0 * b, jnp.zeros(2)).tolist()
      [[3.0, 0.0], [0.0, 6.0]]
    """
    if not lx.is_symmetric(operator):
        raise ValueError(
            f"from_lineax needs a symmetric operator, but {type(operator).__name__} is not known "
            "to be. Pass lineax.symmetric_tag as its tags, or wrap it in TaggedLinearOperator."
        )
    return Function(operator.mv, operator.in_structure())
