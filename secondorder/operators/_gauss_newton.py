"""``Jᵀ M J``: the curvature ``M`` of the outputs, pulled back to the parameters.

``M = ∇²ℓ(z)``, the Hessian of the loss, gives the Gauss-Newton matrix; outer products of sampled
scores per example give the (Monte Carlo) Fisher matrix; outer products of the gradients per example
give the empirical Fisher matrix. ``M = S Sᵀ`` always has a root, so ``B = RᵀR`` with ``R = Sᵀ J``,
the form for least-squares solvers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp

from secondorder import losses, meshes, settings, tree
from secondorder.objectives._base import objective_of
from secondorder.objectives._chunked import Chunked
from secondorder.objectives._objective import Objective
from secondorder.operators._base import Operator
from secondorder.operators._chunks import Chunks, over_parts
from secondorder.operators._dense import ravel
from secondorder.operators._jacobian import Jacobian, linearize
from secondorder.operators._middle import LossCurvature, Middle, OuterProducts, outer_products
from secondorder.operators._rows import AnyRows, ImplicitRows, Rows
from secondorder.tree import Params


@dataclasses.dataclass(frozen=True, eq=False)
class GaussNewton(Operator):
    """``B = Jᵀ M J`` as an operator on the parameters.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> B = so.ggn(so.sum_of_squares(lambda p: 2 * p), jnp.ones(2))
      >>> isinstance(B, so.operators.GaussNewton), B.mv(jnp.ones(2)).tolist()
      (True, [4.0, 4.0])
    """

    jacobian: Jacobian
    middle: Middle

    @property
    def semidefinite(self) -> bool:
        return self.middle.semidefinite

    def mv(self, v: Params) -> Params:
        params = self.jacobian.params
        tree.check_match(v, params, "the vector v", "the operator's parameters")
        through = self.middle.mv(self.jacobian.mv(tree.cast(v, params)))
        return tree.cast(self.jacobian.mvt(through), v)

    def gram(self, *vectors: Params) -> jax.Array:
        """``J vᵢ · M J vⱼ``: tangents only, half the cost of products."""
        params = self.jacobian.params
        images = [self.jacobian.mv(tree.cast(v, params)) for v in vectors]
        bent = [self.middle.mv(u) for u in images]
        matrix = jnp.stack([jnp.stack([tree.vdot(u, w) for w in bent]) for u in images])
        return 0.5 * (matrix + matrix.T)

    def _columns(self) -> Any:
        # XLA on CPUs (JAX 0.10.2) gives wrong float32 sums if it fuses them with the columns.
        return jax.lax.optimization_barrier(self.jacobian.dense())

    def matrix(self, like: Params) -> jax.Array:
        # Not cached: an array from inside a jit or cond must not escape to outside.
        columns = self._columns()
        middle = jax.vmap(self.middle.mv, in_axes=-1, out_axes=-1)(columns)
        return _contract(_rows(columns), _rows(middle))

    def factor(self) -> jax.Array:
        """``R`` with ``RᵀR = B``, one row per output (or per sampled score): ``(k, n)``.

        For a non-convex plain loss, ``RᵀR`` uses the positive part of ``M`` (``losses.AnyLoss``).
        """
        columns = self._columns()
        return _rows(jax.vmap(self.middle.root_transpose, in_axes=-1, out_axes=-1)(columns))

    def derivative_along(self, *path: Params) -> jax.Array:
        """``Sᵀ`` times the next derivative of the outputs along a path: ``(k,)``."""
        return ravel(self.middle.root_transpose(self.jacobian.derivative_along(*path)))

    def residual(self) -> jax.Array | None:
        """The vector ``r`` of length k with ``Rᵀ r`` the gradient; ``None`` where unknown."""
        r = self.middle.residual()
        return None if r is None else ravel(r)

    def rows(self, formed: bool = True, matrix: jax.Array | None = None) -> AnyRows:
        if not formed:
            return self._implicit()
        matrix = self.factor() if matrix is None else matrix
        r = self.residual()
        r = jnp.zeros(matrix.shape[0], matrix.dtype) if r is None else r
        return Rows(matrix, r, self.jacobian.passes)

    def gauss_newton(self) -> GaussNewton:
        return self

    def bends(self, order: int) -> bool:
        return order > 1 and self.middle.least_squares and self.jacobian.bends(order)

    def _implicit(self, gram: Callable[[], jax.Array] | None = None) -> ImplicitRows:
        square = lambda: self.matrix(self.jacobian.params)
        return ImplicitRows(self.jacobian, self.middle, square, gram)


@dataclasses.dataclass(frozen=True, eq=False)
class KnownGram(GaussNewton):
    """``JᵀMJ`` with ``J Jᵀ`` available without ``J``.

    Attributes:
      outputs_gram: ``() ↦ J Jᵀ``, ``(m, m)``, in the order of the ravelled outputs.
    """

    outputs_gram: Callable[[], jax.Array]

    def rows(self, formed: bool = True, matrix: jax.Array | None = None) -> AnyRows:
        del matrix
        return self._implicit(self.outputs_gram if formed else None)


def _rows(columns: Any) -> jax.Array:
    """Outputs-tree of ``(*shape, n)`` as a matrix ``(m, n)``, gathered."""
    leaves = meshes.gathered_leaves(columns)
    return jnp.concatenate([c.reshape(-1, c.shape[-1]) for c in leaves])


def _contract(a: jax.Array, b: jax.Array) -> jax.Array:
    product = jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST)
    return 0.5 * (product + product.T)


@overload
def ggn(objective: Objective, params: Params) -> GaussNewton: ...
@overload
def ggn(objective: Chunked, params: Params) -> Chunks: ...
def ggn(objective: Objective | Chunked, params: Params) -> Operator:
    """The generalised Gauss-Newton matrix ``Jᵀ ∇²ℓ(z) J`` at ``params``, as an operator.

    ``J`` is the Jacobian of the model's outputs ``z``. For least squares it is ``JᵀJ``; for a
    likelihood loss of natural parameters it is the Fisher matrix (Schraudolph 2002; Martens 2020).
    The loss sets the scaling (mean or sum over examples). The matrix is positive semi-definite,
    except for a plain non-convex loss, where products use the indefinite ``∇²ℓ``.

    Raises:
      TypeError: a plain function instead of an objective; integer or complex parameters.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> B = so.ggn(so.sum_of_squares(lambda p: jnp.stack([p[0], 2 * p[1]])), jnp.ones(2))
      >>> B.mv(jnp.ones(2)).tolist()
      [1.0, 4.0]
    """
    return over_parts(objective, params, _ggn)


def _ggn(objective: Callable, params: Params, key: jax.Array | None) -> GaussNewton:
    del key
    objective = objective_of(objective).split("ggn")
    at = linearize(objective.model, params)
    return GaussNewton(at, LossCurvature(losses.as_loss(objective.loss), at.outputs))


def ggnvp(objective: Objective | Chunked, params: Params, v: Params) -> Params:
    """The Gauss-Newton-vector product ``Jᵀ ∇²ℓ(z) J v``; about one and a half gradients.

    Raises:
      TypeError: a plain function instead of an objective; integer or complex parameters.
      ValueError: ``v`` has another structure or other shapes than ``params``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.sum_of_squares(lambda p: jnp.stack([p[0], 2 * p[1]]))
      >>> so.ggnvp(f, jnp.ones(2), jnp.ones(2)).tolist()
      [1.0, 4.0]
    """
    return ggn(objective, params).mv(v)


def fisher(
    objective: Objective | Chunked,
    params: Params,
    key: jax.Array | None = None,
    samples: int = 1,
) -> Operator:
    """The Fisher matrix ``Jᵀ E[s sᵀ] J``, ``s`` the scores of targets drawn *from the model*.

    Args:
      objective: its loss must be a negative log-likelihood of the library (``squared_error``,
        ``softmax_cross_entropy``, ``sigmoid_cross_entropy``, ``poisson``).
      params: the point.
      key: ``None`` for the exact expectation, which equals :func:`ggn` for these losses. With a
        key, ``samples`` targets per example are drawn once, so the operator stays linear.
      samples: number of draws to average.

    Raises:
      TypeError: a loss that is not a likelihood, or a plain function instead of an objective.
      ValueError: ``samples`` below 1.

    Example:
      >>> import jax, jax.numpy as jnp, secondorder as so
      >>> x = jnp.array([1.0, 2.0])
      >>> f = so.compose(so.squared_error(jnp.zeros(2)), lambda p: p * x)
      >>> float(so.fisher(f, jnp.array(1.0)).mv(jnp.array(1.0)))
      2.5
    """
    samples = settings.SIZE.of("fisher", "samples", samples)
    return over_parts(objective, params, functools.partial(_fisher, samples=samples), key)


def _fisher(
    objective: Callable, params: Params, key: jax.Array | None, samples: int
) -> GaussNewton:
    objective = objective_of(objective).split("fisher")
    at = linearize(objective.model, params)
    loss = losses.as_loss(objective.loss)
    draw = functools.partial(loss.sample, outputs=at.outputs)
    jax.eval_shape(draw, jax.random.key(0))  # raises for a loss without targets, at no cost
    if key is None:
        return GaussNewton(at, LossCurvature(loss, at.outputs))
    # A key folded per sample: more samples extend the draw instead of replacing it.
    scores = jax.vmap(lambda i: draw(jax.random.fold_in(key, i)))(jnp.arange(samples))
    return GaussNewton(at, outer_products(scores, loss, at.outputs))


def empirical_fisher(objective: Objective | Chunked, params: Params) -> Operator:
    """The empirical Fisher matrix ``w Σₙ gₙ gₙᵀ``, ``gₙ`` the loss gradients of single examples.

    ``w`` is ``1/N`` for a loss that is a mean over N examples, 1 for a sum. It is *not* the Fisher
    matrix: its targets are the data, and far from a good fit it measures noise, not curvature
    (Kunstner, Balles and Hennig 2019).

    Raises:
      TypeError: a loss without separate terms for single examples, or a plain function.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> f = so.compose(so.squared_error(jnp.array([1.0, 0.0])), lambda p: p * jnp.ones(2))
      >>> float(so.empirical_fisher(f, jnp.array(0.0)).mv(jnp.array(1.0)))
      0.5
    """
    return over_parts(objective, params, _empirical_fisher)


def _empirical_fisher(objective: Callable, params: Params, key: jax.Array | None) -> GaussNewton:
    del key
    objective = objective_of(objective).split("empirical_fisher")
    at = linearize(objective.model, params)
    loss = losses.as_loss(objective.loss)
    # ∂f/∂z contains w·sₙ; the outer products need √w·sₙ.
    root_w = math.sqrt(loss.weight(at.outputs))
    losses.count_examples(at.outputs)
    slope = jax.grad(loss)(tree.accumulator(at.outputs))
    scores = jax.tree.map(lambda s: (s / root_w)[None], slope)
    return GaussNewton(at, OuterProducts(scores, loss))
