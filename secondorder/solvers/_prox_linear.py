"""The prox-linear step: the loss itself, of a linear model, instead of its quadratic."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import settings, tree
from secondorder.operators._gauss_newton import GaussNewton
from secondorder.operators._middle import LossCurvature
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, no_memory
from secondorder.solvers._cg import cg
from secondorder.step import Report, Stop, make_step
from secondorder.tree import Params

HALVINGS = 30


class _Inner(NamedTuple):
    step: Params
    change: Any  # J step, of the outputs
    value: jax.Array  # φ(step)
    gained: jax.Array  # by the last inner step
    count: jax.Array
    iterations: jax.Array
    products: jax.Array
    stopped: jax.Array


@settings.checked(max_steps=settings.COUNT)
def prox_linear(
    solver: Solver | None = None, max_steps: int = 5, tolerance: float = 1e-2
) -> Solver:
    """``d = argmin ℓ(z + J d) + ½ λ ‖d‖²``: the model made linear, the loss kept as it is.

    Convex where the loss is convex in its outputs, and not trusted where the loss bends: a
    quadratic of a cross-entropy does not know that a margin is enough. Solved by Newton's method,
    each step by ``solver`` on ``Jᵀ ∇²ℓ(z + J d) J + λ I`` and halved until φ falls, for which the
    loss of outputs at hand is evaluated and not the model. The first inner step is Gauss-Newton's;
    for squared error it is all. What has altered the gradient (a clipping, another batch) stays a
    linear term.

    Args:
      solver: of the inner systems, one that reads a damping; ``cg(50)`` by default.
      max_steps: inner steps at most.
      tolerance: they end where one gains less than so much of what all have.

    Raises:
      TypeError: at update, a curvature that is no Gauss-Newton matrix in one piece.
      ValueError: a solver that does not read a damping.

    Example:
      >>> import secondorder as so
      >>> tx = so.scale_by_curvature(
      ...     so.exact(so.ggn), so.solvers.prox_linear(), so.trust.damping(halvings=10))

    Source: Burke (1985); Drusvyatskiy and Paquette (2019); Abreu et al. (2025) for networks.
    """
    solver = cg(50) if solver is None else solver
    if solver.reads != "damping":
        raise ValueError(
            f"prox_linear needs a solver that reads a damping, but this one reads a {solver.reads}."
        )

    def solve(quadratic: Quadratic, factors: tuple, memory: tuple, damping: jax.Array):
        del factors
        op: GaussNewton = quadratic.curvature.gauss_newton()
        middle, grad = op.middle, quadratic.grad
        if not isinstance(middle, LossCurvature):
            raise TypeError(
                "The prox_linear() solver needs the loss and the linearised model, but the "
                "curvature is of sampled scores. Use exact(ggn)."
            )
        jacobian, loss = op.jacobian, middle.loss
        outputs = tree.accumulator(middle.outputs)
        tangent = lambda v: tree.accumulator(jacobian.mv(tree.cast(v, jacobian.params)))
        moved = lambda change: tree.cast(tree.add(outputs, change), middle.outputs)
        # In at least float32, so that small changes of the loss are seen.
        of_loss = lambda change: loss(tree.add(outputs, change)).astype(damping.dtype)
        slope = lambda change: jax.grad(of_loss)(change)
        pulled = lambda u: tree.cast(jacobian.mvt(tree.cast(u, middle.outputs)), grad)
        nothing = tree.zeros_like(outputs)
        rest = tree.add(grad, tree.negative(pulled(slope(nothing))))
        start = of_loss(nothing)
        rounding = 10 * jnp.finfo(start.dtype).eps * jnp.abs(start)

        def phi(step: Params, change: Any) -> jax.Array:
            bowl = 0.5 * damping * tree.vdot(step, step)
            return of_loss(change) - start + tree.vdot(rest, step).astype(damping.dtype) + bowl

        def inner(c: _Inner) -> _Inner:
            pull = tree.add(pulled(slope(c.change)), rest)
            here = GaussNewton(jacobian, LossCurvature(loss, moved(c.change)))
            found, _ = solver.update(
                Quadratic(tree.axpy(damping, c.step, pull), here), solver.init(grad), damping
            )
            image = tangent(found.direction)
            along = lambda a: (
                tree.axpy(a, found.direction, c.step),
                tree.axpy(a, image, c.change),
            )

            def rises(search):
                fraction, value, halved = search
                return ~(value <= c.value + rounding) & (halved < HALVINGS)

            def halve(search):
                half = 0.5 * search[0]
                return half, phi(*along(half)), search[2] + 1

            one = jnp.ones((), damping.dtype)
            whole = one, phi(*along(one)), jnp.zeros((), jnp.int32)
            fraction, value, _ = jax.lax.while_loop(rises, halve, whole)
            falls = value <= c.value + rounding
            fraction = jnp.where(falls, fraction, 0)
            step, change = tree.where(falls, along(fraction), (c.step, c.change))
            return _Inner(
                step,
                change,
                jnp.where(falls, value, c.value),
                jnp.where(falls, c.value - value, 0),
                c.count + 1,
                c.iterations + found.report.iterations,
                c.products + found.report.products,
                found.report.stopped,
            )

        def going(c: _Inner) -> jax.Array:
            return (c.count < max_steps) & ((c.count == 0) | (c.gained > -tolerance * c.value))

        zero = jnp.zeros((), damping.dtype)
        none = jnp.zeros((), jnp.int32)
        at_start = _Inner(tree.zeros_like(grad), nothing, zero, zero, none, none, none, none)
        final = jax.lax.while_loop(going, inner, at_start)
        step = final.step
        predicted = final.value - 0.5 * damping * tree.vdot(step, step)
        sound = tree.all_finite((step, grad)) & jnp.isfinite(start)
        outcome = make_step(
            step,
            predicted,
            Report(
                iterations=final.iterations,
                products=final.products + final.count,  # a tangent and a cotangent for each
                stopped=jnp.where(sound, final.stopped, Stop.NONFINITE.value),
            ),
        )
        return outcome, memory

    return Solver(no_memory, solve)
