"""The solver protocol: a quadratic model and one scalar in, a step out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.operators._dense import ravel, unravel
from secondorder.quadratic import Quadratic
from secondorder.step import Step, Stop, make_step
from secondorder.tree import Params
from secondorder.tree._types import Count


class Cost(NamedTuple):
    """Evaluation counts of a preparation.

    Attributes:
      products: curvature products (or Jacobian passes).
      jacobians: dense Jacobians.

    Example:
      >>> import secondorder as so
      >>> so.solvers.Cost(products=3).jacobians
      0
    """

    products: Count = 0
    jacobians: Count = 0


def no_memory(params: Params) -> tuple:
    """``init`` of a solver without memory."""
    del params
    return ()


def nothing_prepared(quadratic: Quadratic, memory: Any) -> tuple[tuple, Any, Cost]:
    """``prepare`` of a solver without work that is independent of the scalar."""
    del quadratic
    return (), memory, Cost()


class Solver(NamedTuple):
    """A minimiser of the quadratic model: ``prepare`` once per point, ``solve`` once per trial.

    Its memory is a tree of arrays. The caller keeps the new memory after an accepted step and the
    old memory after a rejected one.

    Attributes:
      init: ``params -> memory``; works on ``ShapeDtypeStruct`` leaves.
      solve: ``(quadratic, factors, memory, scale) -> (Step, memory)``, for every trial.
      prepare: ``(quadratic, memory) -> (factors, memory, Cost)``, the expensive part. The factors
        do not depend on the scalar, so all trials at a point share them.
      remember: ``(memory, taken) -> memory``; ``taken`` is the final step, after the search and the
        cut at the bounds.
      measure: ``(factors, memory, direction) -> length``, in the norm of ``Step.length``, with the
        arguments ``factors`` and ``memory`` of ``solve``.
      reads: meaning of the scalar: ``"damping"`` (λ), ``"radius"`` (Δ) or ``"cubic"`` (σ).
      sizes: ``(factors, params, grad) -> sizes``, a size of each parameter, from which a first
        radius is taken; ``None`` where lengths are not in units of the curvature.
      measures: whether its steps report an ``optimality``.
      takes_jacobian: whether it forms the dense Jacobian; a caller may supply one.

    Example:
      >>> import secondorder as so
      >>> isinstance(so.solvers.cg(), so.solvers.Solver), so.solvers.cg().reads
      (True, 'damping')
    """

    init: Callable[[Params], Any]
    solve: Callable[[Quadratic, Any, Any, jax.Array], tuple[Step, Any]]
    prepare: Callable[[Quadratic, Any], tuple[Any, Any, Cost]] = nothing_prepared
    remember: Callable[[Any, Params], Any] = lambda memory, taken: memory
    measure: Callable[[Any, Any, Params], jax.Array] = lambda factors, memory, direction: tree.norm(
        direction
    )
    reads: str = "damping"
    sizes: Callable[[Any, Params, Params], Params] | None = lambda factors, params, grad: params
    measures: bool = False
    takes_jacobian: bool = False

    def update(self, quadratic: Quadratic, memory: Any, scale: jax.Array) -> tuple[Step, Any]:
        """``prepare`` and ``solve``, for a single trial: ``(Step, memory)``."""
        factors, memory, cost = self.prepare(quadratic, memory)
        step, memory = self.solve(quadratic, factors, memory, scale)
        return charged(step, cost), memory


def prepares(solver: Any) -> bool:
    """Whether a solver or preconditioner has a ``prepare`` of its own."""
    return solver.prepare is not nothing_prepared


def charged(step: Step, cost: Cost) -> Step:
    """The step with the preparation added to its counts."""
    both = lambda own, more: own + jnp.asarray(more, jnp.int32)
    report = step.report
    return step.reporting(
        products=both(report.products, cost.products),
        jacobians=both(report.jacobians, cost.jacobians),
    )


def redirected(found: Step, direction: Params, quadratic: Quadratic) -> Step:
    """A step in another direction, whose length is not that of the model."""
    predicted = tree.vdot(quadratic.grad, direction)  # to first order
    stopped = jnp.where(tree.all_finite(direction), found.report.stopped, Stop.NONFINITE.value)
    report = found.report._replace(
        residual=jnp.inf, dimension=0, order=1, full=False, stopped=stopped
    )
    return make_step(direction, predicted, report)


def is_on(factor: tree.Real) -> bool:
    """Whether a factor may differ from zero; always true for a traced factor."""
    return not isinstance(factor, int | float) or factor != 0


def parameter_sizes(params: Params, grad: Params, scaling: jax.Array) -> Params:
    """``|x|``; for ``x = 0``, which shows no size, the step of this parameter alone, ``g/D²``.

    Where all are zero, so are the sizes, and the first step shows the length.
    """
    x, g = ravel(params).astype(scaling.dtype), ravel(grad).astype(scaling.dtype)
    alone = jnp.where(jnp.any(x != 0), g / scaling / scaling, 0)
    return unravel(jnp.where(x == 0, alone, x), grad)
