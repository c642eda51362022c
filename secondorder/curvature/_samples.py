"""Vectors whose outer products are a curvature in expectation: ``E[v wᵀ] = B``.

==================  ============================  =======================================
``gradient``        ``v = w = g``                 second moment of the (batch) gradient
``fisher_sample``   ``v = w = Jᵀ s``              Fisher: ``s`` the scores of drawn targets
``ggn_sample``      ``v = w = Jᵀ S u``, u = ±1    Gauss-Newton: ``S Sᵀ`` the loss's curvature
``loss_sample``     the first of these two that the loss has
``ggn_components``  the same, exactly             layers: a pass per output component
``per_example``     ``v = w = Σₙ ±gₙ √w``         empirical Fisher
``hutchinson``      ``v = z = ±1``, ``w = H z``   Hessian
==================  ============================  =======================================

A draw is one backward pass over the whole batch (Hutchinson: one Hessian product): random signs
make the terms between examples, and between outputs, vanish in expectation. No matrix of outputs by
outputs is formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import checks, losses, tree
from secondorder.objectives._base import objective_of
from secondorder.operators._hessian import hvp
from secondorder.tree import Params


class Sample(NamedTuple):
    """Two vectors, in at least float32, with ``E[left rightᵀ] = B``; often the same one."""

    left: Params
    right: Params


class Estimator(NamedTuple):
    """Where samples come from.

    Attributes:
      draw: ``(grads, params, value_fn, key) -> Sample``.
      needs_value_fn: whether it takes the objective, or the gradient alone.
      cotangents: where a draw is a backward pass from the outputs, what it starts from:
        ``(loss, outputs, key) -> `` a tree like the outputs, or several along a new leading axis
        whose outer products are to be summed.
      draws: whether it uses its key; if not, no key is kept, and it gets ``None``.
    """

    draw: Callable[[Params, Params, Any, jax.Array], Any]
    needs_value_fn: bool = True
    cotangents: Callable[[losses.Loss, Any, jax.Array], Any] | None = None
    draws: bool = True


def _twice(v: Params) -> Sample:
    v = tree.accumulator(v)
    return Sample(v, v)


def gradient() -> Estimator:
    """``v = g``, the gradient that the optimizer is given; needs no objective.

    Example:
      >>> import secondorder as so
      >>> adam_like = so.running(so.curvature.gradient(), so.curvature.diagonal(), decay=0.999)
    """
    draw = lambda grads, params, value_fn, key: _twice(grads)
    return Estimator(draw, needs_value_fn=False, draws=False)


def _pulled_back(user: str, cotangent: Callable) -> Estimator:
    """``v = Jᵀ cotangent(loss, outputs, key)``."""

    def draw(grads, params, value_fn, key):
        def of_chunks(chunks):  # their samples are independent, so that their sum is one
            one = lambda part, k: draw(grads, params, part, jax.random.fold_in(key, k)).left
            return _twice(chunks.total(one, root=True))

        of_whole = lambda whole: _twice(of(whole.split(user), params, key))
        return objective_of(value_fn).by_parts(of_whole, of_chunks)

    def of(objective, params, key):
        outputs, pull = jax.vjp(checks.arrays(objective.model, user), params)
        u = tree.cast(cotangent(losses.as_loss(objective.loss), outputs, key), outputs)
        return pull(jax.tree.map(tree.placed_like, u, outputs))[0]

    return Estimator(draw, cotangents=cotangent)


def ggn_sample() -> Estimator:
    """``v = Jᵀ S u`` with random signs ``u``: any loss, through its closed-form root ``S``.

    A plain function as loss takes the dense root of its output curvature; of more than 4096
    outputs, 30 products with that.
    """
    return _pulled_back("ggn_sample", _signed)


def _signed(loss: losses.Loss, outputs: Any, key: jax.Array) -> Any:
    return loss.signed(outputs, tree.random_signs(key, outputs))


def loss_sample() -> Estimator:
    """:func:`fisher_sample` of a likelihood, :func:`ggn_sample` of any other loss."""

    def draw(loss, outputs, key):
        return loss.sample(key, outputs) if loss.is_likelihood else _signed(loss, outputs, key)

    return _pulled_back("loss_sample", draw)


def ggn_components() -> Estimator:
    """``v = Jᵀ S Σₙ ±e_nc`` for every output component c of an example, to be summed: no sample.

    Layer statistics are exact by it, at a backward pass per component; the sum over the examples
    keeps random signs, which those do not see. The components of an example are what follows its
    leading axis; of outputs in several arrays, all of each.

    Raises:
      TypeError: used for one vector instead of layer statistics.
    """

    def cotangents(loss, outputs, key):
        leaves, structure = jax.tree.flatten(tree.accumulator(outputs))
        rows = [math.prod(x.shape[1:]) for x in leaves]

        def component(i: int, c: int, x: jax.Array) -> list[jax.Array]:
            signs = jax.random.rademacher(jax.random.fold_in(key, i), x.shape[:1], x.dtype)
            unit = signs[..., None] * (jnp.arange(rows[i]) == c).astype(x.dtype)[None]
            return [
                unit.reshape(x.shape) if k == i else jnp.zeros_like(z) for k, z in enumerate(leaves)
            ]

        units = [component(i, c, x) for i, x in enumerate(leaves) for c in range(rows[i])]
        stacked = [jnp.stack(columns) for columns in zip(*units, strict=True)]
        return jax.vmap(lambda u: loss.root(outputs, u))(jax.tree.unflatten(structure, stacked))

    def draw(grads, params, value_fn, key):
        raise TypeError(
            "ggn_components() is not one vector: it serves curvature.layerwise(example, "
            "ggn_components()). For other structures use ggn_sample()."
        )

    return Estimator(draw, cotangents=cotangents)


def fisher_sample() -> Estimator:
    """``v = Jᵀ s``: the gradient for targets drawn from the model, times √N for a mean over N.

    What Liu et al. (2023) call Gauss-Newton-Bartlett is its square, ``N ĝ ∘ ĝ``.
    """
    return _pulled_back("fisher_sample", lambda loss, outputs, key: loss.sample(key, outputs))


def per_example() -> Estimator:
    """``v = √w Σₙ ±gₙ`` over the gradients ``gₙ`` of single examples: the empirical Fisher."""

    def draw(loss, outputs, key):
        root_w = math.sqrt(loss.weight(outputs))
        losses.count_examples(outputs)
        slope = jax.grad(loss)(tree.accumulator(outputs))
        first = jax.tree.leaves(slope)[0]
        signs = jax.random.rademacher(key, first.shape[: loss.example_axes(first)], first.dtype)
        one = lambda s: s * signs.reshape(signs.shape + (1,) * (s.ndim - signs.ndim)) / root_w
        return jax.tree.map(one, slope)

    return _pulled_back("per_example", draw)


def hutchinson() -> Estimator:
    """``z`` and ``H z`` with random signs z: ``E[z ∘ H z]`` is the Hessian's diagonal.

    Source: Hutchinson (1989); Bekas, Kokiopoulou and Saad (2007).
    """

    def draw(grads, params, value_fn, key):
        del grads
        z = tree.random_signs(key, params)
        return Sample(z, hvp(value_fn, params, z))

    return Estimator(draw)
