"""What the least-squares solvers share: the rows ``R`` with ``B = RᵀR``, in Moré's scaling.

Squaring the Jacobian squares its condition number, and with it goes half of the digits. ``RᵀR`` is
therefore never formed. With ``D`` the largest norm each column of ``R`` has had so far (Moré 1978,
section 6) and ``y = D d``, ``A = R D⁻¹``, rescaling a parameter or the residuals rescales the step
and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators.dense import ravel, unravel
from secondorder.operators.pullback import Pullback
from secondorder.quadratic import Quadratic
from secondorder.solvers.base import Solver, Step, Stop, make_step, prepared

HIGHEST = jax.lax.Precision.HIGHEST


class Rows(NamedTuple):
    """The local least-squares problem ``½‖A y + r‖² + rest·y``, ``y = D d``.

    Attributes:
      a: ``A``, ``(k, n)``, columns of norm at most one.
      r: the residual ``(k,)``; zero where the curvature knows none.
      rest: ``D⁻¹`` times the part of the gradient that ``Aᵀ r`` does not explain: what a clipping
        or a decay added before, or all of it where there is no residual.
      scaling: the diagonal of ``D``.
      optimality: the largest cosine between residual and column; infinity for a loss whose
        residual is only its slope over the root of its curvature.
      passes: how many passes the dense Jacobian took.
    """

    a: jax.Array
    r: jax.Array
    rest: jax.Array
    scaling: jax.Array
    optimality: jax.Array
    passes: jax.Array


class Answer(NamedTuple):
    """What a row solver finds: ``y``, why it stopped, and whether the step ends at a radius."""

    y: jax.Array
    stopped: Any
    boundary: Any = False


def on_rows(name: str, factorise: Callable, solve: Callable, reads: str = "damping") -> Solver:
    """A solver in Moré's scaled coordinates.

    Args:
      name: for the error that refuses a curvature without rows.
      factorise: ``Rows -> factors``, once per point.
      solve: ``(Rows, factors, scale) -> Answer``, once per trial.
      reads: as in :class:`Solver`.
    """

    def prepare(quadratic: Quadratic, memory):
        rows, memory = _rows(name, quadratic, memory)
        return (rows, factorise(rows)), memory

    def answer(quadratic: Quadratic, factors, scale: jax.Array) -> Step:
        rows, factored = factors
        found = solve(rows, factored, scale.astype(rows.a.dtype))
        change = jnp.matmul(rows.a, found.y, precision=HIGHEST)
        step = found.y / rows.scaling
        # Not g·d + ½ d·Bd: this form loses no digits when the residuals are nearly fitted.
        predicted = jnp.dot(change, rows.r + 0.5 * change) + jnp.dot(rows.rest, found.y)
        sound = jnp.all(jnp.isfinite(step)) & jnp.isfinite(predicted)
        like = quadratic.grad
        return make_step(
            tree.cast(unravel(step, like), like),
            predicted,
            length=jnp.linalg.norm(found.y),
            boundary=found.boundary,
            products=rows.passes,
            jacobians=1,
            optimality=rows.optimality,
            stopped=jnp.where(sound, found.stopped, Stop.NONFINITE.value),
        )

    def remember(params):
        return tree.accumulator(tree.zeros_like(params))

    return prepared(prepare, answer, remember, reads=reads, measures=True)


def _rows(name: str, quadratic: Quadratic, running: tree.Params) -> tuple[Rows, tree.Params]:
    op, g = quadratic.curvature, ravel(quadratic.grad)
    if not isinstance(op, Pullback):
        raise TypeError(
            f"The {name}() solver needs the rows of a Gauss-Newton or Fisher matrix, but the "
            f"curvature is a {type(op).__name__}. Use exact(ggn), or the direct() solver."
        )
    matrix, residual = op.factor(), op.residual()
    norms = jnp.linalg.norm(matrix, axis=0)
    largest = jnp.maximum(ravel(running), norms)
    scaling = jnp.where(largest > 0, largest, 1)
    r = jnp.zeros(matrix.shape[0], matrix.dtype) if residual is None else residual
    optimality = jnp.full((), jnp.inf, matrix.dtype)  # angles to r say nothing of other losses
    if op.middle.least_squares:
        optimality = _largest_cosine(g, norms, r, ravel(op.jacobian.params))
    rest = _unexplained(g, matrix, r)
    passes = jnp.asarray(op.jacobian.passes, jnp.int32)
    rows = Rows(matrix / scaling, r, rest / scaling, scaling, optimality, passes)
    return rows, tree.cast(unravel(largest, running), running)


def _unexplained(g: jax.Array, matrix: jax.Array, r: jax.Array) -> jax.Array:
    """``g − Rᵀ r``, and exactly zero where that is rounding.

    Solving for rounding through ``(RᵀR)⁻¹`` would bring back the squared condition number.
    """
    rest = g - jnp.matmul(matrix.T, r, precision=HIGHEST)
    size = jnp.matmul(jnp.abs(matrix).T, jnp.abs(r), precision=HIGHEST)
    return jnp.where(jnp.abs(rest) <= 1e2 * jnp.finfo(r.dtype).eps * size, 0, rest)


def _largest_cosine(g, norms, r, x) -> jax.Array:
    """``maxⱼ |Rⱼ·r| / (‖Rⱼ‖ (‖r‖ + noise))``: MINPACK's first-order measure, free of every unit.

    The noise is ``10 √ε`` of what the parameters themselves contribute to the residuals,
    ``‖(‖Rⱼ‖ xⱼ)‖``. Where the residuals vanish at the solution the bare cosine stays of size one
    until it is rounding; against this, ``≤ √ε`` means that rounding the parameters moves r as far.
    """
    noise = 10 * jnp.sqrt(jnp.finfo(r.dtype).eps) * jnp.linalg.norm(norms * x)
    scale = jnp.linalg.norm(r) + noise
    return jnp.max(jnp.where(g == 0, 0, jnp.abs(g) / norms / scale), initial=0)
