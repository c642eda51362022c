"""The prox-linear step: the full loss of the linearised model, instead of its quadratic."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import losses, settings, tree
from secondorder.losses import Outputs
from secondorder.operators._gauss_newton import GaussNewton
from secondorder.operators._jacobian import Jacobian
from secondorder.operators._middle import LossCurvature
from secondorder.quadratic import Quadratic
from secondorder.solvers._base import Solver, no_memory
from secondorder.solvers._cg import cg
from secondorder.step import Report, Stop, make_step
from secondorder.tree import Params

HALVINGS = 30


class _Inner(NamedTuple):
    step: Params
    change: Outputs  # J step, shaped like the outputs
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
        problem = _problem(quadratic, damping)
        grad = problem.grad

        def going(c: _Inner) -> jax.Array:
            return (c.count < max_steps) & ((c.count == 0) | (c.gained > -tolerance * c.value))

        zero, none = jnp.zeros((), damping.dtype), jnp.zeros((), jnp.int32)
        change = tree.zeros_like(problem.outputs)
        at_start = _Inner(tree.zeros_like(grad), change, zero, zero, none, none, none, none)
        final = jax.lax.while_loop(going, lambda c: _inner_step(problem, solver, c), at_start)
        predicted = final.value - 0.5 * damping * tree.vdot(final.step, final.step)
        sound = tree.all_finite((final.step, grad)) & jnp.isfinite(problem.start)
        report = Report(
            iterations=final.iterations,
            products=final.products + final.count,  # a tangent and a cotangent each
            stopped=jnp.where(sound, final.stopped, Stop.NONFINITE.value),
        )
        return make_step(final.step, predicted, report), memory

    return Solver(no_memory, solve)


class _Problem(NamedTuple):
    """The minimisation of φ at a point.

    Attributes:
      jacobian, loss: the linearised model and the loss.
      outputs: the outputs z, in at least float32.
      given: the outputs in their own dtype.
      grad: the gradient, which may differ from that of the loss.
      damping: λ.
      start: ``ℓ(z)``.
      rest: ``grad − Jᵀ ∇ℓ(z)``.
    """

    jacobian: Jacobian
    loss: losses.Loss
    outputs: Outputs
    given: Outputs
    grad: Params
    damping: jax.Array
    start: Any = None
    rest: Params = None

    def loss_after(self, change: Outputs) -> jax.Array:
        """``ℓ(z + change)``, in at least float32: low precision would lose small changes."""
        return self.loss(tree.add(self.outputs, change)).astype(self.damping.dtype)

    def slope(self, change: Outputs) -> Params:
        """``Jᵀ ∇ℓ(z + change)``."""
        u = jax.grad(self.loss_after)(change)
        return tree.cast(self.jacobian.mvt(tree.cast(u, self.given)), self.grad)

    def tangent(self, v: Params) -> Outputs:
        """``J v``, in at least float32."""
        return tree.accumulator(self.jacobian.mv(tree.cast(v, self.jacobian.params)))

    def phi(self, step: Params, change: Outputs) -> jax.Array:
        """``φ(step) − φ(0)``, with ``change = J step``."""
        bowl = 0.5 * self.damping * tree.vdot(step, step)
        linear = tree.vdot(self.rest, step).astype(self.damping.dtype)
        return self.loss_after(change) - self.start + linear + bowl

    def model(self, step: Params, change: Outputs) -> Quadratic:
        """The quadratic model of φ at ``step``, without the damping in its curvature."""
        pull = tree.add(self.slope(change), self.rest)
        outputs = tree.cast(tree.add(self.outputs, change), self.given)
        here = GaussNewton(self.jacobian, LossCurvature(self.loss, outputs))
        return Quadratic(tree.axpy(self.damping, step, pull), here)


def _problem(quadratic: Quadratic, damping: jax.Array) -> _Problem:
    """The problem at a point, from its Gauss-Newton matrix."""
    op: GaussNewton = quadratic.curvature.gauss_newton()
    middle = op.middle
    if not isinstance(middle, LossCurvature):
        raise TypeError(
            "The prox_linear() solver needs the loss and the linearised model, but the "
            "curvature is of sampled scores. Use exact(ggn)."
        )
    outputs = tree.accumulator(middle.outputs)
    problem = _Problem(op.jacobian, middle.loss, outputs, middle.outputs, quadratic.grad, damping)
    nothing = tree.zeros_like(outputs)
    rest = tree.add(problem.grad, tree.negative(problem.slope(nothing)))
    return problem._replace(start=problem.loss_after(nothing), rest=rest)


def _inner_step(problem: _Problem, solver: Solver, c: _Inner) -> _Inner:
    """One step of Newton's method on φ, halved until φ falls."""
    model = problem.model(c.step, c.change)
    found, _ = solver.update(model, solver.init(problem.grad), problem.damping)
    direction, image = found.direction, problem.tangent(found.direction)
    along = lambda a: (tree.axpy(a, direction, c.step), tree.axpy(a, image, c.change))
    rounding = 10 * jnp.finfo(problem.start.dtype).eps * jnp.abs(problem.start)

    def rises(search):
        _, value, halved = search
        return ~(value <= c.value + rounding) & (halved < HALVINGS)

    def halve(search):
        half = 0.5 * search[0]
        return half, problem.phi(*along(half)), search[2] + 1

    one = jnp.ones((), problem.damping.dtype)
    whole = one, problem.phi(*along(one)), jnp.zeros((), jnp.int32)
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
