"""The step that a solver proposes, its report, and the reason for its end."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.tree import Params, Real
from secondorder.tree._types import Count


class Reason(enum.IntEnum):
    """Reason for the end of a computation: an integer under ``jit``, with a sentence."""

    sentence: str

    def __new__(cls, value: int, sentence: str):
        member = int.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


class Stop(Reason):
    """Reason for the end of a solve of the model; an integer under ``jit``.

    Example:
      >>> import secondorder as so
      >>> so.solvers.Stop(3).name, so.solvers.Stop.SHIFTED.sentence
      ('BOUNDARY', 'The curvature was not safely positive definite; a shift made it so.')
    """

    SOLVED = 0, "The system was solved to the asked accuracy."
    SHIFTED = 1, "The curvature was not safely positive definite; a shift made it so."
    SINGULAR = 2, "The system was singular to working precision; the step is a damped one."
    BOUNDARY = 3, "The step ends on the trust-region boundary."
    NEGATIVE_CURVATURE = 4, "A direction of negative curvature was met and followed or left."
    MAX_STEPS = 5, "The iteration limit was reached; the step is the best model decrease so far."
    NONFINITE = 6, "The gradient or the curvature held NaN or infinity; there is no step."


class Iterates(NamedTuple):
    """The latest iterates of a solver, in a ring buffer.

    Attributes:
      steps: the iterates, stacked along a leading axis that is one longer than their number.
      predicted: the model's change at each, without the damping term.
      count: number of iterates written so far; the latest is at ``count − 1`` modulo the length.
      due: the iteration after which the next one is written.
    """

    steps: Params
    predicted: jax.Array
    count: jax.Array
    due: jax.Array


class Path(NamedTuple):
    """The path ``α d + ½ α² a + ⅙ α³ b + ...``: higher orders of a nonlinear model beyond ``α d``.

    Attributes:
      terms: ``a, b, ...``, shaped like the parameters; ``d`` is the direction of the step.
    """

    terms: tuple[Params, ...]


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Again:
    """The solve of the step for other residuals; not a candidate, but ``geodesic`` builds a path.

    A function cannot leave its trace, so a step that leaves ``jit`` drops it.

    Attributes:
      solve: ``u ↦ (x, iterations, products)`` with ``x = argmin ½‖R x + u‖² + ½ λ‖D x‖²``; ``u``
        has one entry for each row.
    """

    solve: Callable[[jax.Array], tuple[Params, Count, Count]] | None

    def tree_flatten(self) -> tuple[tuple, None]:
        return (), None

    @classmethod
    def tree_unflatten(cls, *ignored: object) -> Again:
        del ignored
        return cls(None)


class Report(NamedTuple):
    """Report of a solve, for the user; no step depends on it.

    Attributes:
      iterations: number of iterations; 1 for a direct solver.
      products: number of curvature products (or Jacobian passes).
      jacobians: number of dense Jacobians (their passes are counted in ``products``).
      residual: the true relative residual ``‖(B + λ)d + g‖ / ‖g‖`` (with momentum, of the solved
        system); infinity if not computed.
      optimality: scaled first-order measure at the current parameters (from cosines between the
        residual and the Jacobian's columns); infinity if the solver has none, the largest finite
        number before the first step.
      stopped: a :class:`Stop`.
      dimension: order of the solved system: the number of parameters, or of rows if they are fewer;
        0 for a solver without this choice.
      trial_evaluations: evaluations of the objective to choose the step, without its trial.
      order: order of the path of the step; 1 without acceleration.
      full: whether the step minimises the model over all parameters, without damping or cut.
      fraction: fraction of the step that is taken, for a policy that searches along it.
      lost: whether a parameter that had an effect has none at this point.
    """

    iterations: Any = 1
    products: Any = 0
    jacobians: Any = 0
    residual: Any = float("inf")
    optimality: Any = float("inf")
    stopped: Any = Stop.SOLVED
    dimension: Any = 0
    trial_evaluations: Any = 0
    order: Any = 1
    full: Any = False
    fraction: Any = 1.0
    lost: Any = False


class Step(NamedTuple):
    """A proposed step, with the data for a decision about it.

    Attributes:
      direction: the step ``d``, in at least float32.
      predicted: the model's change ``m(d) = g·d + ½ d·Bd`` without the damping term; negative.
      length: ``‖d‖``, in the norm of the solver's radius.
      candidates: other points for the policy to choose: the earlier :class:`Iterates`, the
        :class:`Path` along the step (without a search the step goes to its end, α = 1), or
        ``None``.
      report: a :class:`Report`.
      rounding: rounding error of the objective, where the solver sees its parts; else 0.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> q = so.Quadratic(jnp.array([2.0, 4.0]), so.operators.Diagonal(2 * jnp.ones(2)))
      >>> solver = so.solvers.direct()
      >>> step, _ = solver.update(q, solver.init(jnp.zeros(2)), jnp.array(0.0))
      >>> isinstance(step, so.solvers.Step), step.direction.tolist()
      (True, [-1.0, -2.0])
    """

    direction: Params = ()
    predicted: Any = 0.0
    length: Any = 0.0
    candidates: Any = None
    report: Report = Report()
    rounding: Any = 0.0

    def settled(self, dtype: jax.typing.DTypeLike) -> Step:
        """The step with every number an array of a fixed dtype, never weakly typed."""
        kinds = {float: dtype, bool: bool}

        def settle(record: Any) -> Any:
            numbers = {
                name: jnp.asarray(getattr(record, name), kinds.get(type(default), jnp.int32))
                for name, default in record._field_defaults.items()
                if isinstance(default, int | float)
            }
            return record._replace(**numbers)

        return settle(self)._replace(report=settle(self.report))

    def without_vectors(self) -> Step:
        """The scalars of the step, for the state."""
        return self._replace(direction=(), candidates=None)

    def along(self, fraction: Real) -> Step:
        """The step to the point of its path at the fraction α; length and prediction stay."""
        terms = self.candidates.terms if isinstance(self.candidates, Path) else ()
        whole = isinstance(fraction, float) and fraction == 1
        if whole and not terms:
            return self._replace(candidates=None)
        factor = fraction
        direction = tree.scale(factor, self.direction)
        for order, term in enumerate(terms, 2):
            factor = factor * fraction / order
            direction = tree.axpy(factor, term, direction)
        moved = self._replace(direction=direction, candidates=None)
        return moved if whole else moved.reporting(fraction=fraction)

    def backwards(self) -> tuple[Callable[[jax.Array], Step], jax.Array | None]:
        """``k ↦`` the k-th iterate before the step, and their number (``None`` for none)."""
        kept, whole = self.candidates, self._replace(candidates=None)
        if not isinstance(kept, Iterates):
            return lambda k: whole, None
        length = kept.predicted.shape[0]

        def at(k: jax.Array) -> Step:
            place = (kept.count - k) % length
            row = lambda rows: jax.lax.dynamic_index_in_dim(rows, place, axis=0, keepdims=False)
            earlier = jax.tree.map(row, kept.steps), kept.predicted[place]
            chosen, predicted = tree.where(k == 0, (self.direction, self.predicted), earlier)
            return whole._replace(direction=chosen, predicted=predicted, length=tree.norm(chosen))

        return at, jnp.minimum(kept.count, length - 1)

    def evaluating(self, count: jax.Array) -> Step:
        """The step with ``count`` more trial evaluations in its report."""
        return self.reporting(trial_evaluations=self.report.trial_evaluations + count)

    def reporting(self, **fields: Any) -> Step:
        """The step with some fields of its report replaced."""
        same = lambda name, x: jnp.asarray(x, jnp.asarray(getattr(self.report, name)).dtype)
        settled = {name: same(name, x) for name, x in fields.items()}
        return self._replace(report=self.report._replace(**settled))


def make_step(
    direction: Params,
    predicted: jax.Array,
    report: Report = Report(),
    *,
    length: jax.Array | None = None,
    **decisions: Any,
) -> Step:
    """A :class:`Step` with arrays of fixed dtypes; its length defaults to ``‖direction‖``."""
    length = tree.norm(direction) if length is None else length
    step = Step(direction, predicted, length, report=report, **decisions)
    return step.settled(tree.dtype(direction))
