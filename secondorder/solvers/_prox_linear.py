"""The prox-linear step: the full loss of the linearised model, instead of its quadratic."""

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
    change: Any  # J step, shaped like the outputs
    value: jax.Array  # φ(step)
    gained: jax.Array  # decrease of φ by the last inner step
    count: jax.Array
    iterations: jax.Array
    products: jax.Array
    stopped: jax.Array


@settings.checked(max_steps=settings.COUNT)
def prox_linear(
    solver: Solver | None = None, max_steps: int = 5, tolerance: float = 1e-2
) -> Solver:
    """``d = argmin φ(d)``, ``φ(d) = ℓ(z + J d) + ½ λ ‖d‖²``: linearised model, full loss.

    Convex if the loss is convex in its outputs. The step follows the loss where its quadratic
    fails: the quadratic of a cross-entropy keeps pushing logits that already saturate the loss.
    Solved by Newton's method: ``solver`` takes each inner step with ``Jᵀ ∇²ℓ(z + J d) J + λ I``,
    halved until φ falls. The halvings evaluate the loss only, not the model. The first inner step
    is the Gauss-Newton step; for squared error it is the solution. A change of the gradient
    (clipping, another batch) is kept as a linear term.

    Args:
      solver: solver of the inner systems, with a damping; ``cg(50)`` by default.
      max_steps: maximum number of inner steps.
      tolerance: stop after an inner step that gains less than this fraction of the total gain.

    Raises:
      TypeError: at update, a curvature that is not a Gauss-Newton matrix in one piece.
      ValueError: a solver without a damping.

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
        # In at least float32: low precision would round small changes of the loss to zero.
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
                products=final.products + final.count,  # a tangent and a cotangent each
                stopped=jnp.where(sound, final.stopped, Stop.NONFINITE.value),
            ),
        )
        return outcome, memory

    return Solver(no_memory, solve)
