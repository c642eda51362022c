"""Losses that know their own curvature.

A loss ``ℓ(z)`` of the model's outputs ``z`` enters every Gauss-Newton matrix ``Jᵀ M J`` through its
output curvature ``M = ∇²ℓ(z)``. The losses here know it in closed form, three ways:

==================  ==================================================  ======================
``curvature``       ``v ↦ M v``                                         products
``root``            ``u ↦ S u`` with ``S Sᵀ = M``                        least squares, factors
``sample``          a random ``v`` with ``E[v vᵀ] = M``                  the sampled Fisher
==================  ==================================================  ======================

and ``residual``, the ``r`` with ``S r = ∇ℓ(z)``, which turns any of them into a local
least-squares problem. Any other callable goes through :class:`AnyLoss`, by autodiff.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from secondorder import tree

Outputs = Any  # a pytree of arrays

GENERIC_ROOT_LIMIT = 4096  # outputs; beyond it a dense root of M is larger than most machines


class Loss:
    """The interface: ``loss(outputs) -> scalar`` and its curvature with respect to the outputs.

    Examples are independent: ``M`` is block-diagonal over the ``example_axes(z)`` leading axes of
    each output array, and ``weight(outputs)`` is the factor in front of the sum over examples
    (``1/N`` for a mean, 1 for a sum). ``least_squares`` says that ``‖residual‖²`` measures the
    loss itself, not only its slope: for a likelihood that is surely wrong it has no bound.
    """

    least_squares = False

    def __call__(self, outputs: Outputs) -> jax.Array:
        raise TypeError(f"{type(self).__name__} defines no value.")

    def curvature(self, outputs: Outputs, v: Outputs) -> Outputs:
        """``M v``, the product with the loss's (positive semi-definite) output curvature."""
        raise TypeError(f"{type(self).__name__} defines no curvature product.")

    def root(self, outputs: Outputs, u: Outputs) -> Outputs:
        """``S u`` with ``S Sᵀ = M``; ``u`` is shaped like the outputs."""
        raise TypeError(f"{type(self).__name__} defines no root of its curvature.")

    def root_transpose(self, outputs: Outputs, v: Outputs) -> Outputs:
        """``Sᵀ v``."""
        (u,) = jax.linear_transpose(lambda u: self.root(outputs, u), v)(v)
        return u

    def residual(self, outputs: Outputs) -> Outputs:
        """The ``r`` with ``S r = ∇ℓ(z)``, so that locally ``ℓ`` is ``½‖r + Sᵀ dz‖²`` + constant."""
        raise TypeError(f"{type(self).__name__} defines no residual.")

    def sample(self, key: jax.Array, outputs: Outputs) -> Outputs:
        """A random ``v`` with ``E[v vᵀ] = M``: the score of a target drawn from the model."""
        raise TypeError(
            f"{self!r} is not the negative log-likelihood of a model, so it has no targets to "
            "sample and no Fisher matrix. Use ggn(objective, params), or one of squared_error, "
            "softmax_cross_entropy, sigmoid_cross_entropy, poisson as the loss."
        )

    def weight(self, outputs: Outputs) -> float:
        """The factor in front of the sum over examples."""
        raise TypeError(
            f"{self!r} is a plain function of the outputs, so its terms for single examples are "
            "not known. Use one of the library's losses, such as squared_error(targets)."
        )

    def example_axes(self, output: jax.Array) -> int:
        """How many leading axes of an output array count examples."""
        return min(1, output.ndim)


def _sum(x: Outputs) -> jax.Array:
    dtype = tree.dtype(x)
    return sum((jnp.sum(leaf, dtype=dtype) for leaf in jax.tree.leaves(x)), jnp.zeros((), dtype))


def count_examples(outputs: Outputs) -> int:
    """The number of examples: the leading axis of the outputs (1 for scalar outputs).

    Raises:
      ValueError: the outputs have different leading axes.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(outputs)]
    leading = {shape[:1] for shape in shapes}
    if len(leading) > 1:
        raise ValueError(
            "Examples are counted along the leading axis of the model's outputs, which must be one "
            f"length, but the outputs have the shapes {shapes}. For residuals that belong to no "
            "examples, use sum_of_squares(residual) with hessian or ggn."
        )
    return math.prod(leading.pop()) if leading else 1


@dataclasses.dataclass(frozen=True, eq=False)
class Elementwise(Loss):
    """``w Σᵢ φ(zᵢ; tᵢ)``: each output has its own target and its own curvature ``φ''``.

    A subclass gives ``phi``, its slope and its bend as functions of one output and one target, and
    a sampler of targets where ``φ`` is a negative log-likelihood.
    """

    targets: Outputs

    def phi(self, z, t):
        raise TypeError(f"{type(self).__name__} defines no phi.")

    def slope(self, z, t):
        raise TypeError(f"{type(self).__name__} defines no slope.")

    def bend(self, z, t):
        raise TypeError(f"{type(self).__name__} defines no bend.")

    def draw(self, key: jax.Array, z: jax.Array) -> jax.Array:
        """``t − E[t]`` for a target drawn from the model with natural parameter ``z``."""
        return super().sample(key, z)  # no likelihood: says so

    def weight(self, outputs: Outputs) -> float:
        return 1.0 / max(count_examples(outputs), 1)

    def __call__(self, outputs: Outputs) -> jax.Array:
        return self.weight(outputs) * _sum(self._map(self.phi, outputs))

    def _map(self, fn, outputs: Outputs, *rest: Outputs) -> Outputs:
        targets = self._targets(outputs)
        wide = tree.accumulator(outputs)
        return jax.tree.map(lambda z, t, *r: fn(z, t.astype(z.dtype), *r), wide, targets, *rest)

    def _targets(self, outputs: Outputs) -> Outputs:
        targets = jax.tree.map(jnp.asarray, self.targets)
        name = type(self).__name__
        tree.check_match(targets, outputs, f"the targets of {name}", "the model's output")
        return targets

    def curvature(self, outputs: Outputs, v: Outputs) -> Outputs:
        w = self.weight(outputs)
        return self._map(lambda z, t, x: (w * self.bend(z, t) * x).astype(x.dtype), outputs, v)

    def _sqrt(self, z, t, w):
        # Floored so that a saturated output (φ'' underflowed to 0, φ' not) keeps S r = ∇ℓ; w stays
        # outside the root, for w · tiny would itself be flushed to zero.
        return math.sqrt(w) * jnp.sqrt(jnp.maximum(self.bend(z, t), jnp.finfo(z.dtype).tiny))

    def root(self, outputs: Outputs, u: Outputs) -> Outputs:
        w = self.weight(outputs)
        return self._map(lambda z, t, x: (self._sqrt(z, t, w) * x).astype(x.dtype), outputs, u)

    def root_transpose(self, outputs: Outputs, v: Outputs) -> Outputs:
        return self.root(outputs, v)  # S is diagonal

    def residual(self, outputs: Outputs) -> Outputs:
        w = self.weight(outputs)
        return self._map(lambda z, t: w * self.slope(z, t) / self._sqrt(z, t, w), outputs)

    def sample(self, key: jax.Array, outputs: Outputs) -> Outputs:
        leaves, structure = jax.tree.flatten(tree.accumulator(outputs))
        keys = [jax.random.fold_in(key, i) for i in range(len(leaves))]
        root_w = math.sqrt(self.weight(outputs))
        drawn = [-root_w * self.draw(k, z) for k, z in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, drawn)


class SquaredError(Elementwise):
    """``½ (z − t)²``."""

    least_squares = True

    def phi(self, z, t):
        return 0.5 * (z - t) ** 2

    def slope(self, z, t):
        return z - t

    def bend(self, z, t):
        return jnp.ones_like(z)

    def draw(self, key, z):
        return jax.random.normal(key, z.shape, z.dtype)


class SigmoidCrossEntropy(Elementwise):
    """``log(1 + eᶻ) − t z``."""

    def phi(self, z, t):
        return jax.nn.softplus(z) - t * z

    def slope(self, z, t):
        return jax.nn.sigmoid(z) - t

    def bend(self, z, t):
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)

    def draw(self, key, z):
        p = jax.nn.sigmoid(z)
        return jax.random.bernoulli(key, p).astype(z.dtype) - p


class Poisson(Elementwise):
    """``eᶻ − t z``."""

    def phi(self, z, t):
        return jnp.exp(z) - t * z

    def slope(self, z, t):
        return jnp.exp(z) - t

    def bend(self, z, t):
        return jnp.exp(z)

    def draw(self, key, z):
        rate = jnp.exp(z)
        return jax.random.poisson(key, rate).astype(z.dtype) - rate


@dataclasses.dataclass(frozen=True, eq=False)
class Sum(Elementwise):
    """``Σᵢ φ(rᵢ)`` over residuals: no targets, no mean."""

    targets: Outputs = None

    def _targets(self, outputs: Outputs) -> Outputs:
        return tree.zeros_like(outputs)

    def weight(self, outputs: Outputs) -> float:
        return 1.0


class HalfSumOfSquares(Sum, SquaredError):
    """``½ Σ rᵢ²``."""

    def __repr__(self) -> str:
        return "HalfSumOfSquares()"


@dataclasses.dataclass(frozen=True, eq=False)
class Robust(Sum):
    """``½ c² Σ ρ((rᵢ/c)²)``, SciPy's convention, from ``ρ`` and its first two derivatives.

    The curvature of one term is ``ρ' + 2 s ρ''`` with ``s = (r/c)²``. Beyond the scale it turns
    negative (a residual that far is being ignored); there the second part is dropped, which leaves
    the weight ``ρ' > 0`` of iteratively reweighted least squares (Triggs et al. 2000, section 4.3).
    """

    least_squares = True

    scale: float = 1.0
    rho: Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]] = lambda s: (
        s,
        jnp.ones_like(s),
        jnp.zeros_like(s),
    )

    def _rho(self, z):
        return self.rho((z / self.scale) ** 2)

    def phi(self, z, t):
        return 0.5 * self.scale**2 * self._rho(z)[0]

    def slope(self, z, t):
        return self._rho(z)[1] * z

    def bend(self, z, t):
        _, first, second = self._rho(z)
        full = first + 2 * second * (z / self.scale) ** 2
        # Not `full > 0`: just above zero the step 1/full would be a leap, not a Newton step.
        return jnp.where(full > 0.1 * first, full, first)


@dataclasses.dataclass(frozen=True, eq=False)
class SoftmaxCrossEntropy(Loss):
    """``−Σ_c t_c log softmax(z)_c``, averaged over all leading axes."""

    labels: Any

    def _targets(self, z: jax.Array) -> jax.Array:
        labels = jnp.asarray(self.labels)
        if labels.shape == z.shape and jnp.issubdtype(labels.dtype, jnp.floating):
            return labels.astype(z.dtype)
        if labels.shape == z.shape[:-1] and jnp.issubdtype(labels.dtype, jnp.integer):
            # one_hot counts the classes in the labels' own dtype, where uint8 begins again at 256
            return jax.nn.one_hot(labels.astype(jnp.int32), z.shape[-1], dtype=z.dtype)
        if labels.shape == z.shape:
            return labels.astype(z.dtype)
        raise ValueError(
            f"softmax_cross_entropy got labels of shape {labels.shape} and dtype {labels.dtype} "
            f"for logits of shape {z.shape}. Pass integer labels of shape {z.shape[:-1]} or "
            f"one-hot labels of shape {z.shape}."
        )

    def _logits(self, outputs):
        if not hasattr(outputs, "shape"):
            raise ValueError(
                "softmax_cross_entropy needs the model's output to be one array of logits, but it "
                f"is the tree {jax.tree.structure(outputs)}. Return its logits alone."
            )
        return tree.accumulator(outputs)

    def _parts(self, outputs):
        z = self._logits(outputs)
        t = self._targets(z)
        mass = jnp.sum(t, -1, keepdims=True)  # 1 for a label or a distribution over labels
        return z, t, mass, jax.nn.softmax(z, axis=-1)

    def weight(self, outputs) -> float:
        return 1.0 / max(math.prod(outputs.shape[:-1]), 1)

    def example_axes(self, output: jax.Array) -> int:
        return output.ndim - 1

    def __call__(self, outputs) -> jax.Array:
        z = self._logits(outputs)
        labels = jnp.asarray(self.labels)
        if jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == z.shape[:-1]:
            # Comparing fuses into the sum: no one-hot array of the outputs' size, and no gather,
            # which refuses logits sharded over the classes.
            hit = labels[..., None] == jnp.arange(z.shape[-1])
            chosen, known = jnp.sum(jnp.where(hit, z, 0), axis=-1), jnp.any(hit, axis=-1)
            terms = jax.nn.logsumexp(z, axis=-1) - chosen
            return self.weight(outputs) * jnp.sum(jnp.where(known, terms, jnp.nan))
        t = self._targets(z)
        return -self.weight(outputs) * jnp.sum(t * jax.nn.log_softmax(z, axis=-1))

    def curvature(self, outputs, v):
        # M = w · mass · (diag(p) − p pᵀ) for each example
        _, _, mass, p = self._parts(outputs)
        inner = jnp.sum(p * v, -1, keepdims=True)
        return (self.weight(outputs) * mass * p * (v - inner)).astype(v.dtype)

    def _sqrt(self, p):
        # Floored so that the label of a hopeless example (p underflowed to 0) keeps S r = ∇ℓ.
        return jnp.sqrt(jnp.maximum(p, jnp.finfo(p.dtype).tiny))

    def root(self, outputs, u):
        # (diag(√p) − p √pᵀ)(diag(√p) − √p pᵀ) = diag(p) − p pᵀ, since √pᵀ√p = 1
        _, _, mass, p = self._parts(outputs)
        s = self._sqrt(p)
        inner = jnp.sum(s * u, -1, keepdims=True)
        return (jnp.sqrt(self.weight(outputs) * mass) * (s * u - p * inner)).astype(u.dtype)

    def root_transpose(self, outputs, v):
        _, _, mass, p = self._parts(outputs)
        inner = jnp.sum(p * v, -1, keepdims=True)
        root_w = jnp.sqrt(self.weight(outputs) * mass)
        return (root_w * self._sqrt(p) * (v - inner)).astype(v.dtype)

    def residual(self, outputs):
        # S (mass·p − t)/√p = mass·p − t, because the entries of mass·p − t sum to zero.
        _, t, mass, p = self._parts(outputs)
        root_w = jnp.sqrt(self.weight(outputs) / jnp.where(mass > 0, mass, 1))  # mass 0: padding
        return root_w * (mass * p - t) / self._sqrt(p)

    def sample(self, key, outputs):
        z, _, mass, p = self._parts(outputs)
        drawn = jax.nn.one_hot(jax.random.categorical(key, z), z.shape[-1], dtype=z.dtype)
        return jnp.sqrt(self.weight(outputs) * mass) * (p - drawn)


@dataclasses.dataclass(frozen=True, eq=False)
class AnyLoss(Loss):
    """The generic route: any scalar function of the outputs, its curvature by autodiff.

    Products cost about two passes through the loss. ``root`` and ``residual`` take a dense
    eigendecomposition of ``M`` (eigenvalues below 0 clipped to 0), so they serve small outputs.
    """

    fn: Callable[[Outputs], jax.Array]

    def __call__(self, outputs: Outputs) -> jax.Array:
        return self.fn(outputs)

    def curvature(self, outputs: Outputs, v: Outputs) -> Outputs:
        return jax.jvp(jax.grad(self.fn), (outputs,), (tree.cast(v, outputs),))[1]

    def _eigen(self, outputs: Outputs):
        flat, unravel = jax.flatten_util.ravel_pytree(tree.accumulator(outputs))
        if flat.size > GENERIC_ROOT_LIMIT:
            raise ValueError(
                f"A root of the curvature of {self.fn!r} was asked for, but the model has "
                f"{flat.size} outputs and a loss without a closed form needs a dense root of that "
                f"size (limit {GENERIC_ROOT_LIMIT}). Use one of the library's losses, or a solver "
                "that needs products only, such as cg() or direct()."
            )
        hessian = jax.hessian(lambda z: self.fn(tree.cast(unravel(z), outputs)))(flat)
        values, vectors = jnp.linalg.eigh(hessian.astype(flat.dtype))
        floor = jnp.finfo(flat.dtype).eps * flat.size * jnp.max(jnp.abs(values), initial=0)
        return jnp.where(values > floor, values, 0), vectors, unravel

    def _ravel(self, x: Outputs) -> jax.Array:
        return jax.flatten_util.ravel_pytree(tree.accumulator(x))[0]

    def root(self, outputs: Outputs, u: Outputs) -> Outputs:
        values, vectors, unravel = self._eigen(outputs)
        return tree.cast(unravel(_matvec(vectors, jnp.sqrt(values) * self._ravel(u))), u)

    def root_transpose(self, outputs: Outputs, v: Outputs) -> Outputs:
        values, vectors, unravel = self._eigen(outputs)
        return tree.cast(unravel(jnp.sqrt(values) * _matvec(vectors.T, self._ravel(v))), v)

    def residual(self, outputs: Outputs) -> Outputs:
        values, vectors, unravel = self._eigen(outputs)
        slope = _matvec(vectors.T, self._ravel(jax.grad(self.fn)(outputs)))
        return unravel(jnp.where(values > 0, slope / jnp.sqrt(jnp.where(values > 0, values, 1)), 0))


def _matvec(matrix: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, x, precision=jax.lax.Precision.HIGHEST)


def as_loss(loss: Callable[[Outputs], jax.Array]) -> Loss:
    """``loss`` itself where it knows its curvature, else the generic route around it."""
    return loss if isinstance(loss, Loss) else AnyLoss(loss)


def squared_error(targets: Outputs) -> Loss:
    """``ℓ(z) = (1/N) Σₙ ½‖zₙ − tₙ‖²``: mean over the N examples (leading axis), sum over the rest.

    The negative log-likelihood of a Gaussian of unit variance, up to a constant; ``M = I/N``.

    Args:
      targets: array or pytree of arrays shaped like the model's outputs. A mere broadcast, such as
        ``(N,)`` against ``(N, 1)``, raises a ``ValueError``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.squared_error(jnp.array([0.0, 0.0]))(jnp.array([1.0, 3.0])))
      2.5
    """
    return SquaredError(targets)


def softmax_cross_entropy(labels: Any) -> Loss:
    """``ℓ(z) = −(1/N) Σₙ log softmax(zₙ)[labelₙ]``: mean over all leading axes.

    ``M = (1/N)(diag(p) − p pᵀ)`` for each example, with root ``diag(√p) − p √pᵀ``.

    Args:
      labels: integers of shape ``logits.shape[:-1]``, or one-hot (or soft) labels shaped like the
        logits. Any other shape raises a ``ValueError``; a class that does not exist makes the loss
        NaN.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(float(so.softmax_cross_entropy(jnp.array([0]))(jnp.zeros((1, 10)))), 4)
      2.3026
    """
    return SoftmaxCrossEntropy(labels)


def sigmoid_cross_entropy(labels: Outputs) -> Loss:
    """``ℓ(z) = (1/N) Σₙ Σ log(1 + eᶻ) − t z``: mean over examples, sum over outputs of one example.

    ``M`` is diagonal, ``σ(z)(1 − σ(z))/N``. ``labels`` in ``[0, 1]``, shaped like the logits.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(float(so.sigmoid_cross_entropy(jnp.array([1.0]))(jnp.zeros(1))), 4)
      0.6931
    """
    return SigmoidCrossEntropy(labels)


def poisson(counts: Outputs) -> Loss:
    """``ℓ(z) = (1/N) Σₙ Σ eᶻ − t z``, the Poisson likelihood with log-rate ``z``; ``M = eᶻ/N``.

    Mean over examples, sum over the outputs of one example; without the constant ``log t!``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.poisson(jnp.array([2.0]))(jnp.zeros(1)))
      1.0
    """
    return Poisson(counts)


def half_sum_of_squares() -> Loss:
    """``ℓ(r) = ½ Σ r²``: the loss of nonlinear least squares; ``M = I``. A sum, not a mean."""
    return HalfSumOfSquares()


def huber(delta: float = 1.0) -> Loss:
    """``½ r²`` inside ``|r| ≤ δ``, ``δ(|r| − δ/2)`` outside; summed over residuals (Huber 1964).

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.huber(1.0)(jnp.array([0.5, 3.0])))
      2.625
    """

    def rho(s):
        safe = jnp.maximum(s, 1)
        return (
            jnp.where(s <= 1, s, 2 * jnp.sqrt(safe) - 1),
            jnp.where(s <= 1, 1, safe**-0.5),
            jnp.where(s <= 1, 0, -0.5 * safe**-1.5),
        )

    return Robust(scale=delta, rho=rho)


def soft_l1(c: float = 1.0) -> Loss:
    """``c²(√(1 + (r/c)²) − 1)``, a smooth absolute value; summed over residuals.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> float(so.soft_l1(1.0)(jnp.array([0.0])))
      0.0
    """

    def rho(s):
        t = 1 + s
        return 2 * s / (jnp.sqrt(t) + 1), t**-0.5, -0.5 * t**-1.5  # 2(√t − 1), no cancellation

    return Robust(scale=c, rho=rho)


def cauchy(c: float = 1.0) -> Loss:
    """``½ c² log(1 + (r/c)²)``; summed over residuals. Not convex beyond ``|r| = c``.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(float(so.cauchy(1.0)(jnp.array([1.0]))), 4)
      0.3466
    """
    return Robust(scale=c, rho=lambda s: (jnp.log1p(s), 1 / (1 + s), -1 / (1 + s) ** 2))


def arctan(c: float = 1.0) -> Loss:
    """``½ c² arctan((r/c)²)``, bounded above; summed over residuals.

    Example:
      >>> import jax.numpy as jnp, secondorder as so
      >>> round(float(so.arctan(1.0)(jnp.array([1.0]))), 4)
      0.3927
    """

    def rho(s):
        t = 1 + s**2
        return jnp.arctan(s), 1 / t, -2 * s / t**2

    return Robust(scale=c, rho=rho)
