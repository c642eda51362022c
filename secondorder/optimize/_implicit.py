"""The derivative of a solution, by the implicit function theorem.

At a minimum ``∇ₓf(x*(θ), θ) = 0`` for every θ, so ``dx* = −(∇²ₓₓf)⁻¹ (∇²ₓθ f) dθ``, whatever
algorithm found it: no iteration is differentiated (Griewank and Walther 2008, section 15; Blondel
et al. 2022). θ is everything that the objective closes over.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from secondorder import checks, losses, meshes, tree
from secondorder.layers._jaxpr import converted
from secondorder.linalg import _lapack as lapack
from secondorder.objectives._base import AnyObjective, Plain, objective_of
from secondorder.objectives._chunked import Chunked
from secondorder.objectives._models import BatchedModel, Opened
from secondorder.objectives._objective import Objective
from secondorder.objectives._with_curvature import WithCurvature
from secondorder.operators._dense import ravel, unravel
from secondorder.operators._hessian import hessian
from secondorder.operators._modes import derivable
from secondorder.optimize._bounds import Box
from secondorder.solvers._conjugate_gradients import advance, begin
from secondorder.tree import Params

DENSE_LIMIT = 200  # parameters; beyond it the tangent system is solved by products


@functools.singledispatch
def opened(value_fn: Callable, params: Params) -> tuple[Callable[[Any], AnyObjective], Any]:
    """``(build, θ)`` with ``build(θ)`` the objective, θ the arrays that ``value_fn`` closes over.

    The user's code is traced here, and never again. An objective keeps its split, its loss and its
    examples, or its chunks. A function with derivatives of one mode alone gets the other.
    """
    fn, theta = _converted(checks.number(value_fn, "minimize"), params)
    return lambda theta: Plain(Opened(fn, theta)), theta


@opened.register
def _(value_fn: WithCurvature, params: Params) -> tuple[Callable[[Any], AnyObjective], Any]:
    of_value, theta = opened(value_fn.value_fn, params)
    of_curvature, bent = opened(value_fn.curvature_fn, params)
    return lambda t: WithCurvature(of_value(t[0]), of_curvature(t[1])), (theta, bent)


@opened.register
def _(value_fn: Objective, params: Params) -> tuple[Callable[[Any], AnyObjective], Any]:
    model = value_fn.model
    checked = functools.partial(checks.arrays, user="minimize", integers=True)
    if isinstance(model, BatchedModel):
        first = meshes.first_row(model.examples)
        inner, inside = _converted(checked(model.model), params, first)
        model_theta = (inside, jax.tree.map(jnp.asarray, model.examples))
        build_model = lambda t: BatchedModel(Opened(inner, t[0]), t[1])
        outputs = jax.eval_shape(build_model(model_theta), params)
    else:
        outer, model_theta = _converted(checked(model), params)
        build_model = lambda t: Opened(outer, t)
        outputs = jax.eval_shape(build_model(model_theta), params)
    build_loss, loss_theta = _opened_loss(lambda: value_fn.loss, outputs)
    build = lambda theta: Objective(build_loss(theta[0]), build_model(theta[1]))
    return build, (loss_theta, model_theta)


@opened.register
def _(value_fn: Chunked, params: Params) -> tuple[Callable[[Any], AnyObjective], Any]:
    # The batch is part of θ, each chunk a function of its part.
    kinds = [value_fn.chunk(0), *([value_fn.rest()] if value_fn.left else [])]
    builds, thetas = zip(*(_opened_part(value_fn.objective, c, params) for c in kinds), strict=True)

    def build_whole(theta: Any) -> Chunked:
        of_size = dict(zip(map(_examples, kinds), zip(builds, theta[0], strict=True), strict=True))

        def part(chunk: Any) -> Any:
            build, own = of_size[_examples(chunk)]
            return build(own, chunk)

        return dataclasses.replace(value_fn, part=part, batch=theta[1])

    return build_whole, (thetas, value_fn.batch)


def _examples(chunk: Any) -> int:
    return jax.tree.leaves(chunk)[0].shape[0]


def _opened_part(part: Callable, chunk: Any, params: Params) -> tuple[Callable, Any]:
    """``(build, θ)`` with ``build(θ, chunk)`` the objective of a chunk of this size."""
    if objective_of(part(chunk)).is_split:
        model_of = checks.arrays(lambda p, c: part(c).model(p), "chunked", integers=True)
        model, inside = _converted(model_of, params, chunk)
        outputs = jax.eval_shape(lambda p: model(p, chunk, *inside), params)
        loss, outside = _opened_loss(lambda c: part(c).loss, outputs, chunk)
        build = lambda t, c: Objective(loss(t[1], c), Opened(model, (c, *t[0])))
        return build, (inside, outside)
    fn, inside = _converted(checks.number(lambda p, c: part(c)(p), "chunked"), params, chunk)
    return lambda t, c: Opened(fn, (c, *t)), inside


def _converted(fn: Callable, params: Params, *rest: Any) -> tuple[Callable, list[Any]]:
    """``fn`` as a function of the arrays it closes over, with derivatives in both modes."""
    closed, theta = converted(fn, params, *rest)
    return derivable(closed, params, *rest, *theta), theta


def _opened_loss(loss_of: Callable, outputs: Any, *chunk: Any) -> tuple[Callable, Any]:
    """:func:`opened` for a loss; a loss of the library keeps its class, and so its curvature.

    Args:
      loss_of: ``() -> loss``, or ``chunk -> loss`` with a chunk.
    """
    loss = loss_of(*chunk)
    if isinstance(loss, losses.Total):
        terms = [lambda *c, k=k: loss_of(*c).terms[k] for k in range(len(loss.terms))]
        pairs = zip(terms, loss.split(outputs), strict=True)
        builds, thetas = zip(*(_opened_loss(*pair, *chunk) for pair in pairs), strict=True)
        return lambda t, *c: losses.total(
            *(build(x, *c) for build, x in zip(builds, t, strict=True))
        ), thetas
    if isinstance(loss, losses.AnyLoss):
        whole = jax.eval_shape(tree.whole, outputs)
        own = checks.number(lambda z, *c: loss_of(*c).fn(z), "compose", "loss")
        fn, theta = converted(own, whole, *chunk)
        return lambda t, *c: losses.AnyLoss(lambda z: fn(z, *c, *t)), theta

    def fields_of(*c):
        own = loss_of(*c)
        fields = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
        return {k: v for k, v in fields.items() if not callable(v)}

    fields, theta = converted(fields_of, *chunk)
    # Without its arrays: the derivative rule outlives the trace that they may belong to.
    bare: Any = dataclasses.replace(loss, **dict.fromkeys(jax.eval_shape(fields_of, *chunk)))
    return lambda t, *c: dataclasses.replace(bare, **fields(*c, *t)), theta


def attach(
    build: Callable,
    theta: Any,
    params: Params,
    value: jax.Array,
    held: tuple[Params, Params],
    box: Box | None,
) -> tuple[Params, jax.Array]:
    """``(params, value)`` unchanged, with the derivative of a solution with respect to ``theta``
    and ``box``.

    Args:
      build, theta: from :func:`opened`.
      params, value: the solution.
      held: two masks shaped like ``params``: the parameters held at their lower, and at their upper
        bound, which move with the bound.
      box: ``None`` or the bounds.
    """

    @jax.custom_jvp
    def solution(theta, box, params, value, held):
        del theta, box, held
        return params, value

    @solution.defjvp
    def _(primals, tangents):
        theta, box, params, value, held = primals
        free = jax.tree.map(lambda low, high: ~(low | high), *held)
        # The rule uses the solution as its point, so that it can be differentiated again.
        params, value = solution(theta, box, params, value, held)
        moved, shift = tangents[0], tree.zeros_like(params)
        if box is not None:
            on = lambda low, high, a, b: jnp.where(low, a, jnp.where(high, b, 0))
            shift = jax.tree.map(on, *held, *tangents[1])
        slope = lambda t, p: tree.only(free, jax.grad(build(t))(p))
        _, drift = jax.jvp(slope, (theta, params), (moved, shift))
        step = tree.add(_solve(build(theta), params, tree.negative(drift), free), shift)
        _, change = jax.jvp(lambda p, t: build(t)(p), (params, theta), (step, moved))
        return (params, value), (step, change.astype(value.dtype))

    return solution(theta, box, params, value, held)


def _solve(fn: Callable, params: Params, b: Params, free: Params) -> Params:
    """``H⁻¹ b`` on the free parameters, linear in ``b`` in both directions of differentiation."""
    operator = hessian(fn, params)

    def product(v: Params) -> Params:
        held = jax.tree.map(lambda m, x: jnp.where(m, 0, x), free, v)
        return tree.add(tree.only(free, operator.mv(tree.only(free, v))), held)

    flat = lambda v: ravel(product(unravel(v, params)))

    def dense(_, b: jax.Array) -> jax.Array:
        matrix = jax.vmap(flat)(jnp.eye(b.size, dtype=b.dtype))
        values, vectors = lapack.eigh(0.5 * (matrix + matrix.T))
        floor = b.size * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values), initial=0)
        # Undetermined directions do not move: this is the shortest of the solutions.
        inverse = jnp.where(jnp.abs(values) > floor, 1 / values, 0)
        return vectors @ (inverse * (vectors.T @ b))

    def iterative(matvec: Callable, b: Params) -> Params:
        return _conjugate_gradients(matvec, b, max_steps=4 * tree.size(params))

    if tree.size(params) > DENSE_LIMIT:
        return jax.lax.custom_linear_solve(product, b, iterative, symmetric=True)
    # As one vector: reverse over forward mode fails for trees with a constant leaf.
    x = jax.lax.custom_linear_solve(flat, ravel(b), dense, symmetric=True)
    return tree.cast(unravel(x, b), b)


def _conjugate_gradients(matvec: Callable, b: Params, max_steps: int) -> Params:
    """``A x = b`` to rounding, for a positive definite ``A``: a solution is a minimum."""
    size = tree.norm(b)
    unit = jnp.where(size > 0, size, 1)
    itself = lambda residual: residual
    first = begin(tree.scale(-1 / unit, b), itself)
    target = (10 * jnp.finfo(size.dtype).eps) ** 2
    going = lambda at: (at.rz > target) & (at.count < max_steps)
    go = lambda at: advance(at, matvec, itself, lambda ray: ray.length)[0]
    return tree.scale(unit, jax.lax.while_loop(going, go, first).step)
