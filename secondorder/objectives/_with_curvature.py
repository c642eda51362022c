"""Objective whose curvature comes from another objective, such as of a part of the batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from secondorder.objectives._base import AnyObjective, objective_of
from secondorder.tree import Params


@dataclasses.dataclass(frozen=True, eq=False)
class WithCurvature(AnyObjective):
    """``value_fn`` with the curvature of ``curvature_fn``.

    Value, gradient and the trial of a step are ``value_fn``'s; ``scale_by_curvature`` passes
    ``curvature_fn`` to the curvature.
    """

    value_fn: Callable[[Params], jax.Array]
    curvature_fn: Callable[[Params], jax.Array]

    def __call__(self, params: Params) -> jax.Array:
        return self.value_fn(params)

    @property
    def curved(self) -> AnyObjective:
        return objective_of(self.curvature_fn)

    def before(self, change: Callable[[Params], Params]) -> WithCurvature:
        both = self.value_fn, self.curvature_fn
        return WithCurvature(*(objective_of(fn).before(change) for fn in both))

    def split(self, user: str) -> Any:
        raise TypeError(
            f"{user} got an objective with the curvature of another one, and cannot tell which of "
            "the two is meant. Pass that one itself; around chunks, give with_curvature two "
            "chunked objectives."
        )


def with_curvature(
    value_fn: Callable[[Params], jax.Array], curvature_fn: Callable[[Params], jax.Array]
) -> WithCurvature:
    """The objective ``value_fn`` with the curvature of ``curvature_fn``, such as of a part of the
    batch.

    Curvature products are many, and need fewer examples than a gradient. Both objectives need one
    scale, such as two means over examples: a sum over a part of the examples has only a part of the
    curvature. ``value_fn`` need not be split into loss and model, and either may be chunked.
    Values, gradients and gain ratios are those of ``value_fn``; products, rows, samples and layer
    statistics those of ``curvature_fn``. The operators (``ggn``, ``hessian``) take one of the two.

    Args:
      value_fn: the objective to minimise.
      curvature_fn: an objective of the same parameters.

    Raises:
      TypeError: where either is not callable, or has a curvature of its own already.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x, y = jnp.arange(8.0), 3 * jnp.arange(8.0)
      >>> on = lambda n: so.compose(so.squared_error(y[:n]), lambda p: p * x[:n])
      >>> f = so.with_curvature(on(8), on(4))
      >>> p = jnp.array(0.0)
      >>> opt = so.scale_by_curvature(so.exact(so.ggn), so.solvers.cg(), so.trust.fixed())
      >>> updates, _ = opt.update(jax.grad(f)(p), opt.init(p), p, value_fn=f)
      >>> float(updates)  # g = −52.5 of all, curvature 3.5 instead of 17.5
      15.0

    Source: Martens (2010), section 4.7; Byrd, Chin, Neveitt and Nocedal (2011).
    """
    for name, fn in (("value_fn", value_fn), ("curvature_fn", curvature_fn)):
        if not callable(fn):
            raise TypeError(f"with_curvature needs {name} to be a function, but got {fn!r}.")
        if isinstance(fn, WithCurvature):
            raise TypeError(
                f"with_curvature got a {name} that has a curvature of another objective already. "
                "Pass the two objectives themselves."
            )
    return WithCurvature(value_fn, curvature_fn)
