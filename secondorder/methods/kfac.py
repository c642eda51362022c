"""K-FAC: the curvature of each layer as a Kronecker product of two small matrices."""

from __future__ import annotations

from typing import Any

import optax

from secondorder import solvers, trust
from secondorder.curvature import Curvature, Estimate, exact, layerwise, preconditioned
from secondorder.operators import ggn
from secondorder.stepsize import decayed, step_along
from secondorder.transform import scale_by_curvature


def kfac(
    learning_rate: Any = None,
    damping: Any = 0.1,
    example: Any = None,
    momentum: Any = None,
    decay: Any = 0.95,
    every: Any = 1,
    refresh: Any = 5,
    weight_decay: Any = None,
    estimator: Estimate | None = None,
    reduce: bool = False,
    burn_in: Any = 0,
    trials: Any = 1,
) -> optax.GradientTransformationExtraArgs:
    """``Δ = −(A + π√λ I)⁻¹ ∇W (G + √λ/π I)⁻¹`` for each layer; the step is ``αΔ + μδ``.

    Without a learning rate, α and μ minimise the exact quadratic model over ``Δ`` and the last step
    ``δ``, λ follows the gain ratio, and a step that does not decrease the objective is rejected.

    Args:
      learning_rate: α or a schedule; then λ is fixed, Δ is of the averaged gradient, and nothing is
        evaluated or rejected. ``None`` for the quadratic model.
      damping: the first λ, in the units of the curvature; or the fixed one.
      example: an objective on a batch like those to come, or a function of the parameters that
        returns one: it shows how the model uses its leaves. ``secondorder.layer_table`` prints it.
      momentum: Δ is of the gradient averaged with this decay; 0.9 unless given where the learning
        rate is, else none. With the quadratic model it keeps α from following the noise of
        a batch, whose own gradient it would otherwise be fitted to.
      decay: of the averages A and G.
      every, refresh: steps between two samples of them, and between two inverses; or, for
        inverses where they are needed, ``refresh=curvature.drift(4.0)``.
      weight_decay: decoupled: the parameters shrink by (α times) it a step.
      estimator: what is sampled: ``curvature.fisher_sample()`` (default for a likelihood),
        ``ggn_sample()`` (default for other losses), ``ggn_components()`` for no sampling,
        ``per_example()`` for the empirical Fisher.
      reduce: whether positions that share weights are summed before A and G, or count as examples.
      burn_in: updates at first that gather A and G alone and move nothing, not even λ.
      trials: steps between two trials of the step by its value. Between them λ stays and every
        finite step is taken. ``None``: never, λ is ``damping``; for small batches, on which a step
        that was fitted to the batch always looks good, so that λ would fall and fall. Without a
        learning rate.

    Raises:
      ValueError: no ``example``.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x, w = jax.random.normal(jax.random.key(0), (32, 3)), jnp.zeros((3, 2))
      >>> f = so.compose(so.squared_error(x @ jnp.ones((3, 2))), lambda w: x @ w)
      >>> bool(so.minimize(f, w, so.kfac(example=f)).success)
      True

    Source: Martens and Grosse (2015); Eschenhagen et al. (2023) for ``reduce``.
    """
    check_example("kfac", example)
    layers = layerwise(example, estimator, decay, every, refresh, reduce=reduce)
    return layered(layers, learning_rate, damping, momentum, weight_decay, burn_in, trials)


def layered(
    layers: Curvature,
    learning_rate: Any,
    damping: Any,
    momentum: Any,
    weight_decay: Any,
    burn_in: Any,
    trials: Any,
) -> optax.GradientTransformationExtraArgs:
    """A step by the curvature of layers: of the quadratic model, or of a given length."""
    if learning_rate is None:
        model = preconditioned(exact(ggn), layers)
        solver = solvers.closed_form()
        if momentum is not None:
            solver = solvers.averaged(solver, momentum)
        solver = solvers.momentum(solver)
        never = trials is None
        policy = trust.fixed(damping) if never else trust.damping(damping, lazy=True, every=trials)
        direction = scale_by_curvature(model, solver, policy, burn_in=burn_in)
        return direction if weight_decay is None else optax.chain(direction, decayed(weight_decay))
    solver = solvers.averaged(solvers.closed_form(), 0.9 if momentum is None else momentum)
    direction = scale_by_curvature(layers, solver, trust.fixed(damping), burn_in=burn_in)
    return step_along(direction, learning_rate, weight_decay=weight_decay)


def check_example(method: str, example: Any) -> None:
    """Raise a ``ValueError`` that says what to pass where there is no example."""
    if example is None:
        raise ValueError(
            f"{method} needs example=, an objective on a batch like those to come, to see how the "
            f"model uses its parameters: the shapes of its memory depend on that. Write "
            f"{method}(example=secondorder.compose(loss, lambda p: apply(p, inputs)))."
        )
