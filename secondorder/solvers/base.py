"""HOW the quadratic model is minimised: from a Quadratic and one scalar to a step."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.quadratic import Quadratic
from secondorder.tree import Params


class Stop(enum.IntEnum):
    """Why a solver stopped; carried as an integer through ``jit``."""

    sentence: str

    def __new__(cls, value: int, sentence: str):
        member = int.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

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


class Prepared(NamedTuple):
    """The state of a solver that factorises first, and then solves for any scalar.

    Attributes:
      memory: rolled back where a step is rejected, as every memory.
      factors: what the last factorisation left, and the memory it would leave, kept across
        rejections so that a second trial at the same point costs no new products; ``None`` where
        no second trial is known to be one.
    """

    memory: Any
    factors: Any


class Solver(NamedTuple):
    """A minimiser of the quadratic model.

    Attributes:
      init: ``params -> state``; works on ``ShapeDtypeStruct`` leaves.
      update: ``(quadratic, state, scale) -> (Step, state)``.
      reads: what the scalar means to it, ``"damping"`` (λ), ``"radius"`` (Δ) or
        ``"cubic"`` (σ).
      measures: whether its steps report an ``optimality``.
      taken: ``(state, direction) -> state``, for one that remembers its step: what became of it,
        searched and cut at the bounds.
      measure: ``(state, direction) -> length``, in the norm that ``Step.length`` is measured in.
    """

    init: Callable[[Params], Any]
    update: Callable[[Quadratic, Any, jax.Array], tuple[Step, Any]]
    reads: str = "damping"
    measures: bool = False
    taken: Callable[[Any, Params], Any] = lambda state, direction: state
    measure: Callable[[Any, Params], jax.Array] = lambda state, direction: tree.norm(direction)


def prepared(
    prepare: Callable[[Quadratic, Any], tuple[Any, Any]],
    solve: Callable[[Quadratic, Any, jax.Array], Step],
    remember: Callable[[Params], Any] = lambda params: (),
    state_type: type[Prepared] = Prepared,
    **options: Any,
) -> Solver:
    """A solver in two halves: a factorisation per point, a solution per scalar.

    Args:
      prepare: ``(quadratic, memory) -> (factors, memory)``, the expensive half.
      solve: ``(quadratic, factors, scale) -> Step``.
      remember: ``params -> memory``, the initial memory.
      state_type: of its state.
      options: further fields of :class:`Solver`.
    """

    def update(quadratic: Quadratic, state: Prepared, scale: jax.Array) -> tuple[Step, Prepared]:
        fresh = lambda: prepare(quadratic, state.memory)
        if quadratic.again is None or state.factors is None:
            paid, kept = True, fresh()
        else:
            paid = ~quadratic.again
            kept = jax.lax.cond(quadratic.again, lambda: state.factors, fresh)
        factors, memory = kept
        step = solve(quadratic, factors, scale)
        step = step._replace(
            products=jnp.where(paid, step.products, 0),
            jacobians=jnp.where(paid, step.jacobians, 0),
        )
        return step, state_type(memory, None if quadratic.again is None else kept)

    return Solver(lambda params: state_type(remember(params), None), update, **options)


def is_on(factor: Any) -> bool:
    """Whether a factor may be other than zero: a traced one may turn out so."""
    return not isinstance(factor, int | float) or factor != 0


def roll_back(old: Any, new: Any) -> Any:
    """The solver's state after a rejection: the old one, but factors of this point are kept."""
    return old._replace(factors=new.factors) if isinstance(new, Prepared) else old


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
