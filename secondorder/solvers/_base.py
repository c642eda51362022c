"""HOW the quadratic model is minimised: from a Quadratic and one scalar to a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.quadratic import Quadratic
from secondorder.step import Step
from secondorder.tree import Params


class Cost(NamedTuple):
    """Price of what a solver prepares at a point.

    Attributes:
      products: curvature products (or Jacobian passes).
      jacobians: dense Jacobians.
    """

    products: Any = 0
    jacobians: Any = 0


def no_memory(params: Params) -> tuple:
    """``init`` of a solver that remembers nothing."""
    del params
    return ()


def nothing_prepared(quadratic: Quadratic, memory: Any) -> tuple[tuple, Any, Cost]:
    """``prepare`` of a solver whose work all depends on the scalar."""
    del quadratic
    return (), memory, Cost()


class Solver(NamedTuple):
    """A minimiser of the quadratic model, in two halves: once per point, and once per trial there.

    Its memory is a tree of arrays. Whoever calls it keeps the memory of a step that is taken, and
    the former one of a step that is not.

    Attributes:
      init: ``params -> memory``; works on ``ShapeDtypeStruct`` leaves.
      solve: ``(quadratic, factors, memory, scale) -> (Step, memory)``, for every trial.
      prepare: ``(quadratic, memory) -> (factors, memory, Cost)``, the expensive half. The factors
        do not depend on the scalar, so they serve every trial at the point.
      remember: ``(memory, taken) -> memory``, with the step as it was taken: searched, and cut at
        the bounds.
      measure: ``(factors, memory, direction) -> length``, in the norm of ``Step.length``; memory
        and factors are those that ``solve`` was given.
      radius: ``(factors, memory, scale) -> Δ``, the region that bounds the step: the scalar, or a
        region of the solver's own where the policy has none yet (an infinite scalar).
      reads: what the scalar means to it, ``"damping"`` (λ), ``"radius"`` (Δ) or ``"cubic"`` (σ).
      measures: whether its steps report an ``optimality``.
      takes_jacobian: whether it forms the dense Jacobian, which a caller may have at hand.
    """

    init: Callable[[Params], Any]
    solve: Callable[[Quadratic, Any, Any, jax.Array], tuple[Step, Any]]
    prepare: Callable[[Quadratic, Any], tuple[Any, Any, Cost]] = nothing_prepared
    remember: Callable[[Any, Params], Any] = lambda memory, taken: memory
    measure: Callable[[Any, Any, Params], jax.Array] = lambda factors, memory, direction: tree.norm(
        direction
    )
    radius: Callable[[Any, Any, jax.Array], jax.Array] = lambda factors, memory, scale: scale
    reads: str = "damping"
    measures: bool = False
    takes_jacobian: bool = False

    def update(self, quadratic: Quadratic, memory: Any, scale: jax.Array) -> tuple[Step, Any]:
        """Both halves, for a single trial: ``(Step, memory)``."""
        factors, memory, cost = self.prepare(quadratic, memory)
        step, memory = self.solve(quadratic, factors, memory, scale)
        return charged(step, cost), memory


def prepares(solver: Any) -> bool:
    """Whether a solver, or a preconditioner, does any work that serves all trials at a point."""
    return solver.prepare is not nothing_prepared


def charged(step: Step, cost: Cost) -> Step:
    """The step, its counts with the price of its preparation."""
    both = lambda own, more: own + jnp.asarray(more, jnp.int32)
    report = step.report
    return step.reporting(
        products=both(report.products, cost.products),
        jacobians=both(report.jacobians, cost.jacobians),
    )


def is_on(factor: Any) -> bool:
    """Whether a factor may be other than zero: a traced one may turn out so."""
    return not isinstance(factor, int | float) or factor != 0
