"""Records of a solve: status, counts, history, the state of the loop, and its problem."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from secondorder.objectives._base import AnyObjective
from secondorder.optimize._bounds import Box
from secondorder.optimize._watch import Question
from secondorder.step import Reason
from secondorder.tree import Params, Real


class Status(Reason):
    """Reason for the end of a solve; an integer under ``jit``. Only ``CONVERGED`` is a success.

    Example:
      >>> import secondorder as so
      >>> so.Status(1).name, so.Status.MAX_STEPS.sentence
      ('CONVERGED', 'The step limit was reached before the first-order test held.')
    """

    RUNNING = 0, "The solve has not ended."
    CONVERGED = 1, "The scaled first-order test holds: this is a stationary point to tolerance."
    MAX_STEPS = 2, "The step limit was reached before the first-order test held."
    LIMIT_OF_PRECISION = (
        3,
        "The steps have fallen below rounding, but the gradient test has not held.",
    )
    TRUST_LIMIT = 4, "Every step was rejected until damping or radius reached its limit."
    STAGNATED = 5, "The updates no longer change the parameters, and the gradient is not small."
    NONFINITE = (
        6,
        "The objective or its gradient became NaN or infinite; see the last finite point.",
    )
    NOT_AFFINE = 7, "The model is not affine in all the parameters that separable calls linear."
    STOPPED = 8, "The callback ended the solve."
    NO_EFFECT = (
        9,
        "A parameter has moved to where the residuals do not depend on it; the others are optimal.",
    )
    AT_INFINITY = 10, "Parameters grow without end, and the objective gains nothing any more."


class Evaluations(NamedTuple):
    """Evaluation counts of a solve.

    Attributes:
      values: evaluations of the objective alone (trial steps).
      gradients: evaluations of objective and gradient together.
      jacobians: dense Jacobians.
      products: products with a Hessian, Gauss-Newton or Fisher matrix; a dense one counts n.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> solution = so.minimize(lambda p: jnp.sum((p - 3.0) ** 2), jnp.zeros(2))
      >>> solution.evaluations.gradients.item() > 0
      True
    """

    values: jax.Array
    gradients: jax.Array
    jacobians: jax.Array
    products: jax.Array


class History(NamedTuple):
    """Record of the first steps of a solve; infinity and false beyond the last one.

    Attributes:
      value, grad_norm: at the point the step starts from.
      scale: the damping, radius or cubic weight after the step; infinity for other optimizers.
      accepted: whether the step was taken.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> solution = so.minimize(lambda p: jnp.sum((p - 3.0) ** 2), jnp.zeros(2), history=5)
      >>> solution.history.value[0].item()  # at the start
      18.0
    """

    value: jax.Array
    grad_norm: jax.Array
    scale: jax.Array
    accepted: jax.Array


class Loop(NamedTuple):
    """The complete state of the loop: a solve continues from it without loss."""

    params: Params  # the current point; at the end, the last finite one
    state: optax.OptState
    last: Params  # the last finite point
    value: jax.Array  # at `last`, as are the next two
    grad_norm: jax.Array
    grad: Params
    model: tuple[Any, Any] | None  # outputs and Jacobian, if the optimizer uses one
    moved: jax.Array  # whether value and gradient belong to an earlier point
    cut: jax.Array  # whether bounds changed the last step, and with it the value of a line search
    first_size: jax.Array  # |f| at the start, −1 before its evaluation
    curvature: Params  # lower bounds of the Hessian's diagonal from past steps, zero where none
    flat: jax.Array  # whether, by these bounds, no single parameter can still reduce the value
    still: jax.Array  # updates in a row without a change
    promised: jax.Array  # the largest predicted decrease of these updates
    idle: jax.Array  # steps in a row that promise next to nothing
    largest: Params  # the largest size of each parameter before these steps
    passed: jax.Array  # whether the previous point passed the solver's optimality test
    steps: jax.Array
    paid: jax.Array  # the four counts of Evaluations
    history: History | None
    status: jax.Array


class Problem(NamedTuple):
    """Arguments of a solve.

    Attributes:
      fn: the objective, with derivatives in both modes.
      optimizer: an Optax transformation with extra arguments.
      tol, max_steps: tolerance of the test and limit of updates.
      box: ``None`` or the bounds ``(lower, upper)``, trees like the parameters.
      question: ``None`` or ``(active, iterate) ↦`` whether the callback ends the solve.
    """

    fn: AnyObjective
    optimizer: optax.GradientTransformationExtraArgs
    tol: Real
    max_steps: int | jax.Array
    box: Box | None = None
    question: Question | None = None
