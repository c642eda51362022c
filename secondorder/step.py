"""The step that a solver proposes, its report, and why a computation ended."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import tree
from secondorder.tree import Params


class Reason(enum.IntEnum):
    """Why a computation ended: an integer, so that ``jit`` carries it, with a sentence."""

    sentence: str

    def __new__(cls, value: int, sentence: str):
        member = int.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member


class Stop(Reason):
    """Why a solver stopped; carried as an integer through ``jit``."""

    SOLVED = 0, "The system was solved to the asked accuracy."
    SHIFTED = 1, "The curvature was not safely positive definite; a shift made it so."
    SINGULAR = 2, "The system was singular to working precision; the step is a damped one."
    BOUNDARY = 3, "The step ends on the trust-region boundary."
    NEGATIVE_CURVATURE = 4, "A direction of negative curvature was met and followed or left."
    MAX_STEPS = 5, "The iteration limit was reached; the step is the best model decrease so far."
    NONFINITE = 6, "The gradient or the curvature held NaN or infinity; there is no step."


class Iterates(NamedTuple):
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


class Path(NamedTuple):
    """The path ``α d + ½ α² a + ⅙ α³ b + ...``, which follows the model's outputs beyond ``α d``.

    Attributes:
      terms: ``a, b, ...``, shaped like the parameters; ``d`` is the direction of the step.
    """

    terms: tuple[Params, ...]


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Again:
    """The system of the step, to be solved for other residuals: no candidate, but makes a path.

    A function lives inside one trace alone, so a step that leaves ``jit`` leaves it behind.

    Attributes:
      solve: ``u ↦ (x, iterations, products)`` with ``x = argmin ½‖R x + u‖² + ½ λ‖D x‖²``; ``u``
        has one entry for each row.
    """

    solve: Callable[[jax.Array], tuple[Params, Any, Any]] | None

    def tree_flatten(self) -> tuple[tuple, None]:
        return (), None

    @classmethod
    def tree_unflatten(cls, *ignored: Any) -> Again:
        del ignored
        return cls(None)


class Report(NamedTuple):
    """What a solver reports of its work; no step depends on it.

    Attributes:
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
      trial_evaluations: values of the objective taken to choose the step, before its trial.
      order: of the path that the step begins: 1 without acceleration, as of a model that has no
        second derivatives.
      full: whether the step minimises the model over all parameters, neither damped nor cut.
      fraction: how much of the step is taken, by a policy that searches along it.
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


class Step(NamedTuple):
    """A solver's proposal: a direction, and all that a decision about it reads.

    Attributes:
      direction: the step ``d``, in at least float32.
      predicted: the model's change ``m(d) = g·d + ½ d·Bd`` without the damping term; negative.
      length: ``‖d‖``, in the norm the solver's radius is measured in.
      candidates: other points that a policy may choose: the :class:`Iterates` on the way to the
        step, the :class:`Path` that begins with it (a step that is not searched goes to its end,
        α = 1), or ``None``.
      report: a :class:`Report`.
    """

    direction: Params = ()
    predicted: Any = 0.0
    length: Any = 0.0
    candidates: Any = None
    report: Report = Report()

    def settled(self, dtype: Any) -> Step:
        """With every number an array of its own dtype, never weakly typed."""
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
        """The scalars of the step, which a state keeps."""
        return self._replace(direction=(), candidates=None)

    def along(self, fraction: Any) -> Step:
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
        """``k ↦`` the k-th iterate before the step, and how many there are; ``None`` of none."""
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
        """The step, chosen by so many more values of the objective."""
        return self.reporting(trial_evaluations=self.report.trial_evaluations + count)

    def reporting(self, **fields: Any) -> Step:
        """The step, with other fields of its report."""
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
    """A :class:`Step` with settled numbers, as long as the direction where no length is given."""
    length = tree.norm(direction) if length is None else length
    step = Step(direction, predicted, length, report=report, **decisions)
    return step.settled(tree.dtype(direction))
