"""HOW the quadratic model is minimised: from a Quadratic and one scalar to a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.quadratic import Quadratic
from secondorder.step import Reason
from secondorder.tree import Params


class Stop(Reason):
    """Why a solver stopped; carried as an integer through ``jit``."""

    SOLVED = 0, "The system was solved to the asked accuracy."
    SHIFTED = 1, "The curvature was not safely positive definite; a shift made it so."
    SINGULAR = 2, "The system was singular to working precision; the step is a damped one."
    BOUNDARY = 3, "The step ends on the trust-region boundary."
    NEGATIVE_CURVATURE = 4, "A direction of negative curvature was met and followed or left."
    MAX_STEPS = 5, "The iteration limit was reached; the step is the best model decrease so far."
    NONFINITE = 6, "The gradient or the curvature held NaN or infinity; there is no step."


class Trail(NamedTuple):
    """Iterates that a solver passed on its way, the latest of them, in a ring of rows.

    Attributes:
      steps: along a leading axis of the ring's length, which is one more than are kept.
      predicted: the model's change at each, without the damping term.
      count: how many were kept so far: the latest lies at ``count − 1`` modulo the length.
      due: the iteration after which the next is kept.
    """

    steps: Params
    predicted: jax.Array
    count: jax.Array
    due: jax.Array


class Step(NamedTuple):
    """What a solver hands over.

    Attributes:
      direction: the step ``d``, in at least float32.
      predicted: the model's change ``m(d) = g·d + ½ d·Bd`` without the damping term; negative.
      length: ``‖d‖``, in the norm the solver's radius is measured in.
      boundary: whether the step was cut at the radius.
      full: whether it minimises the model over all parameters, neither damped nor cut.
      iterations: of an iterative solver; 1 for a direct one.
      products: curvature products (or Jacobian passes) paid.
      jacobians: dense Jacobians formed (their passes are counted in ``products``).
      residual: the true relative residual ``‖(B + λ)d + g‖ / ‖g‖`` (with momentum, of the system
        that is solved); infinity where not computed.
      optimality: the scaled first-order measure at the current parameters, where the solver knows
        one (from cosines between the residual and the Jacobian's columns); infinity where it does
        not, the largest finite number before the first step.
      stopped: a :class:`Stop`.
      dimension: the order of the system that was solved, the parameters' number or that of the rows
        where they are fewer; 0 of a solver that has no choice.
      fraction: how much of the step is taken, by a policy that searches along it.
      order: of the path that the step begins: 1 without acceleration, as of a model that has no
        second derivatives.
      looks: values of the objective taken to choose it, before its trial.
      bends: ``a, b, ...`` where the path ``α d + ½ α² a + ⅙ α³ b + ...`` follows the model's
        outputs better than ``α d``; a step that is not searched goes to its end, α = 1.
      trail: iterates on the way to it, for the one of the lowest value to be taken; ``None`` else.
    """

    direction: Params
    predicted: jax.Array
    length: jax.Array
    boundary: jax.Array
    full: jax.Array
    iterations: jax.Array
    products: jax.Array
    jacobians: jax.Array
    residual: jax.Array
    optimality: jax.Array
    stopped: jax.Array
    dimension: jax.Array
    fraction: jax.Array
    looks: jax.Array
    order: jax.Array
    bends: tuple[Params, ...] = ()
    trail: Any = None


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
    return step._replace(
        products=both(step.products, cost.products), jacobians=both(step.jacobians, cost.jacobians)
    )


def is_on(factor: Any) -> bool:
    """Whether a factor may be other than zero: a traced one may turn out so."""
    return not isinstance(factor, int | float) or factor != 0


def make_step(
    direction: Params,
    predicted: jax.Array,
    *,
    length: jax.Array | None = None,
    boundary: Any = False,
    full: Any = False,
    iterations: Any = 1,
    products: Any = 0,
    jacobians: Any = 0,
    residual: Any = jnp.inf,
    optimality: Any = jnp.inf,
    stopped: Any = Stop.SOLVED,
    dimension: Any = 0,
    order: int = 1,
    bends: tuple[Params, ...] = (),
    trail: Trail | None = None,
) -> Step:
    """A :class:`Step` with every field an array of a settled dtype, never weakly typed."""
    dtype = tree.dtype(direction)
    real = lambda x: jax.lax.convert_element_type(x, dtype)
    whole = lambda x: jax.lax.convert_element_type(x, jnp.int32)
    return Step(
        direction=direction,
        predicted=real(predicted),
        length=real(tree.norm(direction) if length is None else length),
        boundary=jnp.asarray(boundary, bool),
        full=jnp.asarray(full, bool),
        iterations=whole(iterations),
        products=whole(products),
        jacobians=whole(jacobians),
        residual=real(residual),
        optimality=real(optimality),
        stopped=whole(stopped),
        dimension=whole(dimension),
        fraction=real(1),
        looks=whole(0),
        order=whole(order),
        bends=bends,
        trail=trail,
    )
