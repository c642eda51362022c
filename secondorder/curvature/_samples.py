"""Estimators: sampled vectors with a curvature as expected outer product, ``E[v wᵀ] = B``.

==================  ============================  =======================================
``gradient``        ``v = w = g``                 second moment of the (batch) gradient
``fisher_sample``   ``v = w = Jᵀ s``              Fisher: ``s`` the scores of drawn targets
``ggn_sample``      ``v = w = Jᵀ S u``, u = ±1    Gauss-Newton: ``S Sᵀ`` the loss's curvature
``loss_sample``     ``fisher_sample`` of a likelihood, else ``ggn_sample``
``ggn_components``  all output components         for layers: a pass per output component
``per_example``     ``v = w = Σₙ ±gₙ √w``         empirical Fisher
``hutchinson``      ``v = z = ±1``, ``w = H z``   Hessian
==================  ============================  =======================================

A draw is one backward pass over the whole batch (Hutchinson: one Hessian product). With random
signs the products between examples, and between outputs, have expectation zero. No matrix of
outputs by outputs is formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from secondorder import checks, losses, meshes, tree
from secondorder.losses import Outputs
from secondorder.objectives._base import objective_of
from secondorder.operators._hessian import hvp
from secondorder.tree import Params


class Sample(NamedTuple):
    """Two vectors in at least float32 with ``E[left rightᵀ] = B``; often both are the same.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> g = jnp.array([1.0, 2.0])
      >>> sample = so.curvature.gradient().draw(g, g, None, None)
      >>> sample.left.tolist()
      [1.0, 2.0]
    """

    left: Params
    right: Params


class Estimator(NamedTuple):
    """A source of samples.

    Attributes:
      draw: ``(grads, params, value_fn, key) -> Sample``.
      needs_value_fn: whether it needs the objective; False for the gradient only.
      cotangents: start of the backward pass, for an estimator that is one: ``(loss, outputs, key)
        ->`` a tree like the outputs, or several along a new leading axis, whose outer products are
        summed.
      draws: whether it uses the key; otherwise no key is stored, and the key is ``None``.

    Example:
      >>> import secondorder as so
      >>> estimator = so.curvature.gradient()
      >>> isinstance(estimator, so.curvature.Estimator), estimator.needs_value_fn
      (True, False)
    """

    draw: Callable[[Params, Params, Any, jax.Array], Any]
    needs_value_fn: bool = True
    cotangents: Callable[[losses.Loss, Outputs, jax.Array], Outputs] | None = None
    draws: bool = True


def _twice(v: Params) -> Sample:
    v = tree.accumulator(v)
    return Sample(v, v)


def gradient() -> Estimator:
    """``v = g``, the optimizer's gradient; needs no objective.

    Example:
      >>> import secondorder as so
      >>> adam_like = so.running(so.curvature.gradient(), so.curvature.diagonal(), decay=0.999)
    """
    draw = lambda grads, params, value_fn, key: _twice(grads)
    return Estimator(draw, needs_value_fn=False, draws=False)


def _pulled_back(user: str, cotangent: Callable) -> Estimator:
    """``v = Jᵀ cotangent(loss, outputs, key)``."""

    def draw(grads, params, value_fn, key):
        def of_chunks(chunks):  # independent samples: their sum is a sample
            one = lambda part, k: draw(grads, params, part, jax.random.fold_in(key, k)).left
            return _twice(chunks.total(one, root=True))

        of_whole = lambda whole: _twice(of(whole.split(user), params, key))
        return objective_of(value_fn).by_parts(of_whole, of_chunks)

    def of(objective, params, key):
        outputs, pull = jax.vjp(checks.arrays(objective.model, user), params)
        u = tree.cast(cotangent(losses.as_loss(objective.loss), outputs, key), outputs)
        return pull(jax.tree.map(meshes.placed_like, u, outputs))[0]

    return Estimator(draw, cotangents=cotangent)


def ggn_sample() -> Estimator:
    """``v = Jᵀ S u`` with random signs ``u`` and the root ``S`` of the loss's curvature.

    A plain function as loss uses the dense root of its output curvature; with more than 4096
    outputs, 30 products with this curvature.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.ggn_sample(), so.curvature.diagonal(), decay=0.9)
    """
    return _pulled_back("ggn_sample", _signed)


def _signed(loss: losses.Loss, outputs: Outputs, key: jax.Array) -> Outputs:
    return loss.signed(outputs, tree.random_signs(key, outputs))


def loss_sample() -> Estimator:
    """:func:`fisher_sample` for a likelihood, :func:`ggn_sample` for other losses.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.loss_sample(), so.curvature.diagonal(), decay=0.9)
    """

    def draw(loss, outputs, key):
        return loss.sample(key, outputs) if loss.is_likelihood else _signed(loss, outputs, key)

    return _pulled_back("loss_sample", draw)


def ggn_components() -> Estimator:
    """``v = Jᵀ S Σₙ ±e_nc`` for every output component c, with the outer products summed over c.

    It makes layer statistics exact, at the cost of a backward pass per component. The random signs
    of the sum over examples do not affect layer statistics. The components of an example are the
    entries after the leading axis; for outputs in several arrays, of each array.

    Raises:
      TypeError: used for one vector instead of layer statistics.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.ones((5, 2))), lambda w: jnp.ones((5, 3)) @ w)
      >>> opt = so.kfac(example=f, estimator=so.curvature.ggn_components())
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

    Its square ``N ĝ ∘ ĝ`` is the Gauss-Newton-Bartlett estimator of Liu et al. (2023).

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.fisher_sample(), so.curvature.diagonal(), decay=0.9)
    """
    return _pulled_back("fisher_sample", lambda loss, outputs, key: loss.sample(key, outputs))


def per_example() -> Estimator:
    """``v = √w Σₙ ±gₙ``, ``gₙ`` the gradients of single examples: the empirical Fisher.

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.per_example(), so.curvature.diagonal(), decay=0.9)
    """

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

    Example:
      >>> import secondorder as so
      >>> curvature = so.running(so.curvature.hutchinson(), so.curvature.diagonal(), decay=0.9)

    Source: Hutchinson (1989); Bekas, Kokiopoulou and Saad (2007).
    """

    def draw(grads, params, value_fn, key):
        del grads
        z = tree.random_signs(key, params)
        return Sample(z, hvp(value_fn, params, z))

    return Estimator(draw)
